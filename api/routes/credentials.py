"""Credentials of the user for tools: given, listed, revoked; connections to providers."""

import html
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from starlette.responses import HTMLResponse

from api.dependencies import ID, CurrentUser, Dependencies, Deps
from api.problems import RESPONSES, TOO_LARGE, described
from api.request_body import body_schema, json_body
from api.schemas.credentials import Connecting, Credential, CredentialList, NewToken, Provider
from longhaul.credentials.credentials import Begun, cookie_of
from longhaul.db import credentials
from longhaul.errors import NotConnectableError, NotFoundError
from longhaul.settings.credentials import CREDENTIAL_NAME
from longhaul.streams.events import connect_url

router = APIRouter(prefix="/v1/credentials", tags=["credentials"], responses=RESPONSES)
#: Providers send people here. A browser shows by its cookie that it has begun this; it needs no token.
callback_router = APIRouter(prefix="/v1/oauth")
CredentialName = Annotated[str, Path(max_length=64, pattern=CREDENTIAL_NAME, description="Name of a credential.")]
NOT_STORED = described(409, "Credentials cannot be stored here, or there are too many; `detail` says why.")
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Longhaul</title><body style="font: 1.1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 4rem auto;
padding: 0 1rem"><h1 style="font-size: 1.3rem">{title}</h1>{body}</body></html>"""
HTML_PAGE = {"description": "A page for a person.", "content": {"text/html": {"schema": {"type": "string"}}}}


@router.get("", summary="List your credentials")
async def listing(user: CurrentUser, deps: Deps) -> CredentialList:
    """Their names and dates; the secrets are not to be had."""
    async with deps.database.read() as connection:
        found = await credentials.list_of_user(connection, user)
    providers = [
        Provider(name=name, title=one.title, url=connect_url(name)) for name, one in deps.settings.providers.items()
    ]
    return CredentialList(
        data=[Credential.model_validate(one) for one in found], has_more=False, next_cursor=None, providers=providers
    )


@router.put(
    "/{name}",
    summary="Give a token",
    responses={**TOO_LARGE, **NOT_STORED},
    openapi_extra=body_schema(NewToken),
)
async def put(
    name: CredentialName, user: CurrentUser, deps: Deps, body: Annotated[NewToken, Depends(json_body(NewToken))]
) -> Credential:
    """It replaces the credential of this name. Calls that wait for it go on."""
    stored = await deps.credentials.put_token(user, name, body.token)
    await deps.answers.connected(user, name)
    return Credential.model_validate(stored)


@router.delete("/{name}", status_code=204, summary="Revoke a credential")
async def revoke(name: CredentialName, user: CurrentUser, deps: Deps) -> Response:
    """It is deleted here, and its provider is told, if that takes such a message. Calls that run have it already."""
    removed = await deps.credentials.remove(user, name)
    deps.in_background(deps.credentials.revoked(removed))
    return Response(status_code=204)


@router.post("/{name}/connect", summary="Begin to connect to a provider", responses=NOT_STORED)
async def begin(name: CredentialName, user: CurrentUser, deps: Deps, response: Response) -> Connecting:
    """Open `authorization_url` in the browser that has sent this: its cookie is asked for when it comes back."""
    begun = await deps.credentials.begin(user, name)
    _set_cookie(deps, response, begun)
    response.headers["cache-control"] = "no-store"
    return Connecting(authorization_url=begun.authorization_url, expires_at=begun.expires_at)


@router.get(
    "/{name}/connect",
    summary="A page to connect to a provider",
    response_class=HTMLResponse,
    responses={200: HTML_PAGE, **NOT_STORED},
)
async def page(name: CredentialName, user: CurrentUser, deps: Deps) -> HTMLResponse:
    """The address for people to open. It names the account, and leads to the provider by a click."""
    title = deps.credentials.provider(name).title
    begun = await deps.credentials.begin(user, name)
    text = (
        f"<p>This gives Longhaul's tools access to {html.escape(title)}, for the account "
        f"<b>{html.escape(user)}</b>. Go on only if that is your account.</p>"
        f'<p><a href="{html.escape(begun.authorization_url)}">Continue to {html.escape(title)}</a></p>'
    )
    shown = _page(f"Connect {title}", text)
    _set_cookie(deps, shown, begun)
    return shown


@callback_router.get("/callback", include_in_schema=False)
async def callback(
    request: Request,
    deps: Deps,
    state: Annotated[str, Query(max_length=200, pattern=ID)] = "",
    code: Annotated[str, Query(max_length=4_000, pattern=ID)] = "",
) -> HTMLResponse:
    """Where a provider sends people back to."""
    try:
        stored = await deps.credentials.finish(state, request.cookies.get(cookie_of(state), ""), code)
    except (NotConnectableError, NotFoundError) as error:
        return _page("Not connected", f"<p>{html.escape(str(error))} Go back to the chat to try again.</p>", 400)
    await deps.answers.connected(stored.user_id, stored.name)
    title = deps.credentials.provider(stored.name).title
    done = _page(f"{title} is connected", "<p>You can close this page. What waited for it goes on by itself.</p>")
    done.delete_cookie(cookie_of(state), path=callback_router.prefix)
    return done


def _page(title: str, body: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(PAGE.format(title=html.escape(title), body=body), status, headers=PAGE_HEADERS)


def _set_cookie(deps: Dependencies, response: Response, begun: Begun) -> None:
    response.set_cookie(
        begun.cookie,
        begun.browser,
        expires=begun.expires_at,
        path=callback_router.prefix,
        secure=deps.settings.url_for_users.startswith("https://"),
        httponly=True,
        samesite="lax",
    )
