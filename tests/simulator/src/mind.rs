//! What tasks know, in worlds that are explored. A task that has met the same as another one since both knew nothing goes on
//! as that one does: what it knows is a hash of all that, which tells it apart where it waits.

use std::cell::Cell;
use std::fmt::{self, Arguments, Debug, Write as _};
use std::hash::{DefaultHasher, Hasher as _};

/// What the task that runs knows.
#[derive(Default)]
pub(crate) struct Mind {
    /// Nothing is kept in random runs.
    keeps: bool,
    knows: Cell<Knows>,
    /// What is committed, as a hash.
    tables: Cell<u64>,
}

/// What a task knows, and whether it has read of the tables and looked at the time since it was let go on.
#[derive(Clone, Copy, Default)]
pub(crate) struct Knows {
    hash: u64,
    has_read: bool,
    has_time: bool,
}

impl Mind {
    pub fn new(keeps: bool) -> Self {
        Self { keeps, ..Self::default() }
    }

    /// The tables are these from now on.
    pub fn set_tables(&self, hash: u64) {
        self.tables.set(hash);
    }

    /// Another task goes on, that knows this; the former one's knowledge.
    pub fn enter(&self, hash: u64) -> Knows {
        self.knows.replace(Knows { hash, ..Knows::default() })
    }

    /// The former task goes on.
    pub fn back(&self, knows: Knows) {
        self.knows.set(knows);
    }

    /// As long as this is the same, so are the tables.
    pub fn tables(&self) -> u64 {
        self.tables.get()
    }

    /// What the task knows.
    pub fn knows(&self) -> u64 {
        self.knows.get().hash
    }

    /// The task has met something that neither the tables nor where it waits tell.
    pub fn learn(&self, what: &dyn Debug) {
        if self.keeps {
            self.fold(hash(format_args!("{what:?}")));
        }
    }

    /// All that the task knows from now on is this: it keeps nothing else in mind.
    pub fn only(&self, what: &dyn Debug) {
        self.enter(self.hash(what));
    }

    /// Spawns a task that knows this only; it is a [`Mind::hash`].
    pub fn knowing<T>(&self, knows: u64, spawn: impl FnOnce() -> T) -> T {
        let former = self.enter(knows);
        let spawned = spawn();
        self.back(former);
        spawned
    }

    /// What an invariant looks at the task does not see.
    pub fn aside<T>(&self, look: impl FnOnce() -> T) -> T {
        let former = self.knows.get();
        let seen = look();
        self.back(former);
        seen
    }

    /// The task reads of the tables.
    pub fn reads(&self) {
        let knows = self.knows.get();
        if self.keeps && !knows.has_read {
            self.knows.set(Knows { has_read: true, ..knows });
            self.fold(self.tables.get());
        }
    }

    /// The task looks at the time.
    pub fn looks(&self, now: i64) {
        let knows = self.knows.get();
        if self.keeps && !knows.has_time {
            self.knows.set(Knows { has_time: true, ..knows });
            self.fold(now.unsigned_abs());
        }
    }

    fn fold(&self, hash: u64) {
        let knows = self.knows.get();
        let folded = (knows.hash.rotate_left(5) ^ hash).wrapping_mul(0x517c_c1b7_2722_0a95);
        self.knows.set(Knows { hash: folded, ..knows });
    }

    /// A hash for what one task hands to another; of nothing in random runs.
    pub fn hash(&self, what: &dyn Debug) -> u64 {
        if self.keeps { hash(format_args!("{what:?}")) } else { 0 }
    }
}

/// Of a text that is nowhere kept.
pub(crate) fn hash(text: Arguments<'_>) -> u64 {
    struct Text(DefaultHasher);
    impl fmt::Write for Text {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            self.0.write(part.as_bytes());
            Ok(())
        }
    }
    let mut hashed = Text(DefaultHasher::new());
    let _ = hashed.write_fmt(text);
    hashed.0.finish()
}

/// Something that is waited for, with what it tells whom it wakes.
#[derive(Debug, Default)]
pub(crate) struct Flag {
    is_up: Cell<bool>,
    news: Cell<u64>,
}

impl Flag {
    pub fn is_up(&self) -> bool {
        self.is_up.get()
    }

    /// Up, where it is not yet; `news` is a [`Mind::hash`].
    pub fn raise(&self, news: u64) {
        if !self.is_up.replace(true) {
            self.news.set(news);
        }
    }

    pub fn lower(&self) {
        self.is_up.set(false);
        self.news.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a task knows that did this and nothing else.
    fn known(of: impl FnOnce(&Mind)) -> u64 {
        let mind = Mind::new(true);
        mind.set_tables(7);
        of(&mind);
        mind.knows()
    }

    #[test]
    fn a_task_is_told_by_what_it_met() {
        assert_eq!(known(|_| ()), 0);
        assert_ne!(known(|mind| mind.learn(&"cancel")), known(|mind| mind.learn(&"skip")));
        assert_ne!(known(|mind| [1, 2].iter().for_each(|n| mind.learn(n))), known(|mind| mind.learn(&2)));
        assert_eq!(known(|mind| [(), ()].iter().for_each(|()| mind.reads())), known(Mind::reads), "once a step");
        let later = known(|mind| {
            mind.set_tables(8);
            mind.reads();
        });
        assert_ne!(later, known(Mind::reads));
        assert_ne!(known(|mind| mind.looks(1)), known(|mind| mind.looks(2)));
        assert_eq!(known(|mind| mind.back(mind.enter(3))), 0, "the former task knows nothing of the other one's");
    }

    #[test]
    fn nothing_is_kept_in_random_runs() {
        let mind = Mind::new(false);
        mind.learn(&"cancel");
        mind.reads();
        mind.looks(1);
        assert_eq!((mind.knows(), mind.hash(&1)), (0, 0));
    }

    #[test]
    fn a_flag_tells_its_first_news_until_it_is_lowered() {
        let flag = Flag::default();
        flag.raise(1);
        flag.raise(2);
        assert_eq!((flag.is_up(), flag.news.get()), (true, 1));
        flag.lower();
        assert_eq!((flag.is_up(), flag.news.get()), (false, 0));
    }
}
