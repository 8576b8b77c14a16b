from __future__ import annotations

from tests.api.conftest import Api


async def test_a_page_asked_for_again_keeps_its_policy(api: Api) -> None:
    # a browser puts the headers of a 304 over those it kept: with the policy of data among them,
    # the page would lose its own scripts at the second visit
    for path in ("/", "/js/app.js", "/docs"):
        first = await api.http.get(path)
        again = await api.http.get(path, headers={"If-None-Match": first.headers["etag"]})

        assert (first.status_code, again.status_code) == (200, 304)
        assert "content-security-policy" not in again.headers
        is_page = path != "/js/app.js"
        assert ("script-src 'self'" in first.headers["content-security-policy"]) == is_page


async def test_the_page_is_served_and_nothing_beside_it(api: Api) -> None:
    page = await api.http.get("/")
    outside = await api.http.get("/../settings.py")
    python = await api.http.get("/__init__.py")

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert b'<script type="module" src="js/app.js">' in page.content
    assert (outside.status_code, python.status_code) == (404, 404)
