//! Who asks, and whether it is within the rate: before the endpoint, for everything but health and metrics.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::{App, Shared};
use crate::auth::{Bearer, Denied};
use crate::limits::{Excess, Standing};

/// Below it, requests count for their address, whatever token comes with them: passwords are guessed here.
const AUTH: &str = "/v1/auth/";

/// Verifies the token, counts the request, and tells the endpoint who asks.
pub async fn admit(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    let bearer = bearer(&app, request.headers()).await;
    let (mut response, standing) = match count(&app, &request, &bearer) {
        Ok(standing) => {
            request.extensions_mut().insert(bearer);
            (next.run(request).await, standing)
        }
        Err(excess) => {
            crate::figures::rate_limited();
            (excess.problem().into_response(), excess.standing)
        }
    };
    standing.tell(response.headers_mut());
    response
}

async fn bearer(app: &App, headers: &HeaderMap) -> Bearer {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Bearer::Nobody };
    let parts = value.to_str().ok().and_then(|v| v.split_once(' '));
    let Some((_, token)) = parts.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
        return Bearer::Denied(Denied::Invalid("Authorization is `Bearer <access token>`"));
    };
    app.auth.verify(token.trim(), &app.backend).await.map_or_else(Bearer::Denied, Bearer::Caller)
}

fn count(app: &App, request: &Request, bearer: &Bearer) -> Result<Standing, Excess> {
    match bearer {
        Bearer::Caller(caller) if !request.uri().path().starts_with(AUTH) => app.limits.customer(caller.id),
        _ => app.limits.address(address(request)),
    }
}

/// The peer's address: a proxy in front counts as one address, and limits by itself.
fn address(request: &Request) -> IpAddr {
    let info = request.extensions().get::<ConnectInfo<SocketAddr>>();
    info.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip())
}
