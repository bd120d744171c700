//! Form-encoded requests, read into operations.

use std::collections::BTreeMap;

use crate::intents::{Refusal, Settlement};

/// A change that was asked for, or whose time has come.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operation {
    Create {
        amount: i64,
        currency: String,
        description: Option<String>,
        metadata: Metadata,
        method: Option<String>,
    },
    Confirm {
        intent: String,
        method: Option<String>,
    },
    Cancel {
        intent: String,
    },
    Refund {
        intent: String,
        amount: Option<i64>,
        metadata: Metadata,
    },
    /// Ends the intent or the refund of that id.
    Settle {
        id: String,
        end: Settlement,
    },
}

pub(crate) type Metadata = BTreeMap<String, String>;

/// The parameters of a request, each once.
struct Form(BTreeMap<String, String>);

impl Form {
    fn parse(body: &[u8], allowed: &[&str]) -> Result<Self, Refusal> {
        let mut fields = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(body) {
            let family = name.split('[').next().unwrap_or_default();
            if !allowed.contains(&family) {
                return Err(Refusal::invalid("parameter_unknown", format!("unknown parameter {name}")));
            }
            fields.insert(name.into_owned(), value.into_owned());
        }
        Ok(Self(fields))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    fn need(&mut self, name: &'static str) -> Result<String, Refusal> {
        let missing = || Refusal::invalid("parameter_missing", format!("{name} is missing"));
        self.take(name).ok_or_else(|| Refusal { param: Some(name), ..missing() })
    }

    fn amount(&mut self) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.take("amount") else { return Ok(None) };
        match text.parse() {
            Ok(amount) if amount > 0 => Ok(Some(amount)),
            _ => Err(Refusal {
                param: Some("amount"),
                ..Refusal::invalid("parameter_invalid_integer", "amount must be a whole number above zero")
            }),
        }
    }

    fn metadata(&mut self) -> Metadata {
        let name = |name: &str| Some(name.strip_prefix("metadata[")?.strip_suffix(']')?.to_owned());
        self.0.iter().filter_map(|(key, value)| Some((name(key)?, value.clone()))).collect()
    }
}

/// `POST /v1/payment_intents`
pub(crate) fn create(body: &[u8]) -> Result<Operation, Refusal> {
    let allowed =
        ["amount", "currency", "description", "metadata", "payment_method", "payment_method_types", "confirm"];
    let mut form = Form::parse(body, &allowed)?;
    if form.take("confirm").is_some_and(|confirm| confirm != "false") {
        return Err(Refusal::invalid("parameter_unknown", "confirm at creation is not supported here"));
    }
    let Some(amount) = form.amount()? else { return Err(form.need("amount").err().unwrap_or_default()) };
    let currency = form.need("currency")?;
    if currency.len() != 3 || !currency.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Err(Refusal::invalid("parameter_invalid", "currency must be a code of ISO 4217"));
    }
    let currency = currency.to_ascii_lowercase();
    let (description, method) = (form.take("description"), form.take("payment_method"));
    Ok(Operation::Create { amount, currency, description, metadata: form.metadata(), method })
}

/// `POST /v1/payment_intents/{id}/confirm`
pub(crate) fn confirm(intent: String, body: &[u8]) -> Result<Operation, Refusal> {
    let mut form = Form::parse(body, &["payment_method", "return_url"])?;
    Ok(Operation::Confirm { intent, method: form.take("payment_method") })
}

/// `POST /v1/payment_intents/{id}/cancel`
pub(crate) fn cancel(intent: String, body: &[u8]) -> Result<Operation, Refusal> {
    Form::parse(body, &["cancellation_reason"])?;
    Ok(Operation::Cancel { intent })
}

/// `POST /v1/refunds`
pub(crate) fn refund(body: &[u8]) -> Result<Operation, Refusal> {
    let mut form = Form::parse(body, &["payment_intent", "amount", "metadata", "reason"])?;
    let (intent, amount) = (form.need("payment_intent")?, form.amount()?);
    Ok(Operation::Refund { intent, amount, metadata: form.metadata() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_and_what_is_wrong_is_named() {
        let body = b"amount=4200&currency=EUR&metadata%5Bsaga%5D=s&payment_method_types%5B%5D=card&description=a+b";
        let Operation::Create { amount, currency, description, metadata, method } = create(body).unwrap() else {
            panic!("not a create")
        };
        assert_eq!((amount, currency.as_str(), description.as_deref()), (4200, "eur", Some("a b")));
        assert_eq!((metadata["saga"].as_str(), method), ("s", None));
        for (body, code) in [
            ("currency=eur", "parameter_missing"),
            ("amount=0&currency=eur", "parameter_invalid_integer"),
            ("amount=1", "parameter_missing"),
            ("amount=1&currency=eur&confirm=true", "parameter_unknown"),
            ("amount=1&currency=eur&color=red", "parameter_unknown"),
        ] {
            assert_eq!(create(body.as_bytes()).unwrap_err().code, code, "{body}");
        }
        assert_eq!(refund(b"amount=1").unwrap_err().param, Some("payment_intent"));
    }
}
