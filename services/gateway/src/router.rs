//! The routes and the layers around them.

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use eventicket_kit::Problem;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admit::admit;
use crate::app::Shared;
use crate::edge::edge;
use crate::v1::{auth, bookings, breakers, dead_letters, events, me, sagas};
use crate::{docs, health, jwks, openapi};

/// Everything that the gateway serves.
pub fn router(app: Shared) -> Router {
    layered(app, Router::new())
}

/// The same with further routes, which pass the same layers.
pub fn layered(app: Shared, more: Router<Shared>) -> Router {
    let admitted = Router::from(api())
        .merge(more)
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(app.clone(), admit));
    // Health and metrics are asked for when nothing else is right: no token is looked at, and no rate holds them back.
    let operations = Router::from(operations()).method_not_allowed_fallback(method_not_allowed);
    admitted.merge(operations).layer(from_fn(edge)).with_state(app)
}

async fn method_not_allowed() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "Not with this method; `Allow` has those that are",
    )
}

/// The endpoints of the API.
pub fn api() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(auth::register::register))
        .routes(routes!(auth::login::login))
        .routes(routes!(auth::refresh::refresh))
        .routes(routes!(jwks::jwks))
        .routes(routes!(me::show::show, me::edit::edit))
        .routes(routes!(me::bookings::bookings))
        .routes(routes!(events::create::create, events::list::list))
        .routes(routes!(events::show::show, events::edit::edit, events::delete::delete))
        .routes(routes!(events::publish::publish))
        .routes(routes!(events::stop::stop))
        .routes(routes!(events::cancel::cancel))
        .routes(routes!(events::availability::availability))
        .routes(routes!(bookings::create::create))
        .routes(routes!(bookings::show::show))
        .routes(routes!(bookings::pay::pay))
        .routes(routes!(bookings::cancel::cancel))
        .routes(routes!(bookings::stream::stream))
        .routes(routes!(bookings::tickets::tickets))
        .routes(routes!(sagas::list::list))
        .routes(routes!(sagas::show::show))
        .routes(routes!(sagas::history::history))
        .routes(routes!(sagas::retry::retry))
        .routes(routes!(sagas::skip::skip))
        .routes(routes!(sagas::cancel::cancel))
        .routes(routes!(sagas::compensate::compensate))
        .routes(routes!(sagas::pause::pause))
        .routes(routes!(sagas::resume::resume))
        .routes(routes!(sagas::resolve::resolve))
        .routes(routes!(sagas::abandon::abandon))
        .routes(routes!(sagas::bulk::bulk))
        .routes(routes!(breakers::list::list))
        .routes(routes!(breakers::open::open))
        .routes(routes!(breakers::close::close))
        .routes(routes!(breakers::auto::auto))
        .routes(routes!(dead_letters::list::list))
        .routes(routes!(dead_letters::show::show))
        .routes(routes!(dead_letters::replay::replay))
        .routes(routes!(dead_letters::discard::discard))
        .routes(routes!(docs::document))
        .routes(routes!(docs::page))
}

/// Health and metrics.
pub fn operations() -> OpenApiRouter<Shared> {
    OpenApiRouter::default()
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
}
