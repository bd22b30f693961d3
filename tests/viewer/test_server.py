"""The whole server, asked as its page asks and as an attacker would: what it serves, what it takes, what it refuses."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path
from urllib.parse import quote

import nibabel
import pytest
from asking import NAMES, PNG, ask, drops_beside, finished, page, refusal, shelf_of, strict, texts
from starlette.testclient import TestClient

from made_results import write_results, write_scan_results
from priorlens.viewer import server
from priorlens.viewer.drops import Drops
from priorlens.viewer.guard import HEADERS
from priorlens.viewer.server import STATIC, create_app


def addresses(folder: Path) -> list[str]:
    """Everything that is there to be read of four cases."""
    layers = [f"/api/cases/{n}/layers/{layer}.nii.gz" for n in (1, 2, 3) for layer in ("image", "map", "truth")]
    static = [f"/static/{path.relative_to(STATIC)}" for path in STATIC.rglob("*") if path.is_file()]
    cases = [f"/api/cases/{n}" for n in range(1, 5)] + [f"/api/cases/{n}/overlay.png" for n in (1, 2, 3)]
    tables = [f"/api/tables/{name}" for name in ("scores.csv", "regions.csv", "spectrum.csv", "calibration.csv")]
    return ["/", "/api", "/openapi.json", "/report", "/api/results", *cases, *layers, *tables, *static]


# --- what it serves


def test_everything_is_there_and_carries_the_policy(client: TestClient, folder: Path) -> None:
    for address in addresses(folder):
        found = client.get(address)
        assert found.status_code == 200 and found.content, address
        rest = dict(HEADERS)
        if address == "/report":
            assert "frame-ancestors 'none'" in found.headers["content-security-policy"]
            rest.pop("content-security-policy")
        assert {name: found.headers.get(name) for name in rest} == rest, address
        assert "server" not in found.headers and "access-control-allow-origin" not in found.headers


def test_the_page_and_its_modules_are_sent_as_what_they_are(client: TestClient) -> None:
    """With nosniff a browser runs no script of another type."""
    assert client.get("/").headers["content-type"].startswith("text/html")
    for path in STATIC.glob("*.js"):
        assert "javascript" in client.get(f"/static/{path.name}").headers["content-type"]
    assert "text/css" in client.get("/static/style.css").headers["content-type"]


@pytest.mark.parametrize("name", ["index.html", "api.html"])
def test_a_page_has_no_script_or_style_inside_that_the_policy_forbids(name: str) -> None:
    text = (STATIC / name).read_text()
    assert not re.search(r"\sstyle=|\son\w+=|javascript:|<style|<script(?![^>]*\ssrc=)", text)
    for address in re.findall(r'(?:src|href)="([^"]+)"', text):
        assert address.startswith(("/", "#", "data:")) and not address.startswith("//"), address


def test_results_and_cases(client: TestClient) -> None:
    found = strict(client.get("/api/results").content)
    assert [line["number"] for line in found["cases"]][-1] == 4 and len(found["cases"]) == 4
    assert found["report"] and found["scoring"]["possible"] is False and "--model" in found["scoring"]["why_not"]
    assert {line["name"] for line in found["cases"]} == set(NAMES)
    for number in range(1, 5):
        told = strict(client.get(f"/api/cases/{number}").content)
        line = next(line for line in found["cases"] if line["number"] == number)
        assert {name: told[name] for name in line} == line
        for layer in told["layers"]:
            raw = gzip.decompress(client.get(layer["address"]).content)
            assert nibabel.Nifti1Image.from_bytes(raw).shape == (56, 40, 1)


def test_names_of_people_are_data_and_never_markup(client: TestClient) -> None:
    """JSON that a browser will not take for a page, and that has no address with a name in it."""
    found = client.get("/api/results")
    assert "<script>" in found.text and found.headers["content-type"] == "application/json"
    assert found.headers["x-content-type-options"] == "nosniff"


def test_tables_are_as_they_lie_in_the_folder(client: TestClient, folder: Path) -> None:
    for name in strict(client.get("/api/results").content)["tables"]:
        found = client.get(f"/api/tables/{name}")
        assert found.content == (folder / name).read_bytes()
        assert found.headers["content-type"].startswith("text/csv")
        assert found.headers["content-disposition"] == f'attachment; filename="{name}"'


def test_picture_and_report_are_the_files(client: TestClient, folder: Path) -> None:
    assert client.get("/api/cases/2/overlay.png").content == (folder / "overlays/good/Änne.png").read_bytes()
    assert client.get("/report").content == (folder / "report.html").read_bytes()


def test_layers_of_a_scan_are_the_files(tmp_path: Path) -> None:
    scans = write_scan_results(tmp_path / "scans")
    client = page(shelf_of(scans))
    for layer in strict(client.get("/api/cases/2").content)["layers"]:
        folder = {"image": "images", "map": "maps", "segmentation": "segmentations", "truth": "truth"}[layer["layer"]]
        assert client.get(layer["address"]).content == (scans / folder / "bert.nii.gz").read_bytes()
    assert client.get("/api/cases/2/layers/map.nii.gz").headers["content-type"] == "application/gzip"


# --- what is not there


@pytest.mark.parametrize(
    "address",
    [
        *("/api/cases/0", "/api/cases/5", "/api/cases/-1", "/api/cases/99999999999999999999"),
        *("/api/cases/5/layers/map.nii.gz", "/api/cases/4/layers/map.nii.gz", "/api/cases/4/overlay.png"),
        *("/api/cases/1/layers/reconstruction.nii.gz", "/api/tables/slices.csv", "/api/tables/model.json"),
        *("/api/tables/report.html", "/api/drops/1", "/nowhere", "/docs", "/redoc", "/static", "/static/"),
        *("/static/nothing.js", "/favicon.ico", "/api/", "/.git/config"),
    ],
)
def test_what_is_not_there(client: TestClient, address: str) -> None:
    refusal(client.get(address, follow_redirects=False), 404)


@pytest.mark.parametrize(
    "address",
    [
        *("/api/cases/one", "/api/cases/1.5", "/api/cases/%00", "/api/cases/1e3", "/api/cases/" + "9" * 5000),
        *("/api/cases/1/layers/scores.nii.gz", "/api/cases/1/layers/..%5c.nii.gz", "/api/drops/x"),
    ],
)
def test_what_is_no_address_of_anything(client: TestClient, address: str) -> None:
    refusal(client.get(address), 422)


TRAVERSALS = (
    *("..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%5c..%5cetc%5cpasswd", "%2fetc%2fpasswd"),
    *("....//....//etc/passwd", "..%252f..%252fetc%252fpasswd", "..;/..;/etc/passwd", "scores.csv%00.png"),
    *("../scores.csv", "%2e%2e/scores.csv", "%c0%ae%c0%ae%2fetc%2fpasswd", "maps%2f..%2fscores.csv", "./scores.csv%2f"),
)


@pytest.mark.parametrize("way", TRAVERSALS)
@pytest.mark.parametrize(
    "place",
    [
        *("/api/tables/{}", "/static/{}", "/static/vendor/{}", "/api/cases/{}", "/api/cases/1/{}", "/{}"),
        *("/api/cases/1/layers/{}", "/api/cases/1/layers/{}.nii.gz", "/report/{}", "/api/drops/{}"),
    ],
)
def test_no_way_out_of_the_folder(client: TestClient, place: str, way: str) -> None:
    found = client.get(place.format(way), follow_redirects=False)
    assert found.status_code in (404, 422), found.text
    refusal(found, found.status_code)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/static/../server.py",
            "/static/vendor/../../server.py",
            "/static//etc/passwd",
            "/static/../../../errors.py",
        ),
        *("/api/tables/../model.json", "/api/tables//etc/passwd", "/../etc/passwd", "//etc/passwd", "/static/\0"),
        *("/api/cases/1/layers/../../../model.json", "/static/..\\server.py", "/static/" + "a" * 5000),
    ],
)
def test_nor_one_that_no_browser_would_send(folder: Path, path: str) -> None:
    """A browser takes the dots out by itself, others do not."""
    found = ask(create_app(shelf_of(folder), None), path)
    assert found.status in (404, 422) and list(strict(found.content)) == ["detail"]
    assert {name: found.headers.get(name) for name in HEADERS} == HEADERS


def test_nothing_that_links_lead_to_outside(tmp_path: Path) -> None:
    results = write_results(tmp_path / "results", ["a.png"], layers=True)
    (tmp_path / "outside").mkdir()
    for name in ("overlays/a.png", "images/a.png", "regions.csv"):
        path = tmp_path / "outside" / Path(name).name
        os.replace(results / name, path)
        (results / name).symlink_to(path)
    (tmp_path / "outside/report.html").write_text("outside")
    (results / "report.html").symlink_to(tmp_path / "outside/report.html")
    client = page(shelf_of(results))
    for address in (
        "/api/cases/1/overlay.png",
        "/api/cases/1/layers/image.nii.gz",
        "/api/tables/regions.csv",
        "/report",
    ):
        refusal(client.get(address), 404)
    found = strict(client.get("/api/results").content)
    assert not found["report"] and "regions.csv" not in found["tables"]
    told = strict(client.get("/api/cases/1").content)
    assert told["overlay"] is None and [layer["layer"] for layer in told["layers"]] == ["map"]


def test_a_table_whose_names_lead_out(tmp_path: Path) -> None:
    scans = write_scan_results(tmp_path / "scans", ["anna", "bert"])
    (tmp_path / "passwd.nii.gz").write_bytes(b"secret")
    for path in (scans / "scores.csv", scans / "regions.csv"):
        path.write_text(path.read_text().replace("anna,", "../../passwd,").replace("bert,", "b\0ert,"))
    client = page(shelf_of(scans))
    assert len(strict(client.get("/api/results").content)["cases"]) == 2
    for number in (1, 2):
        assert strict(client.get(f"/api/cases/{number}").content)["layers"] == []
        for layer in ("image", "map", "segmentation"):
            refusal(client.get(f"/api/cases/{number}/layers/{layer}.nii.gz"), 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("address", ["/", "/api/results", "/api/cases/1", "/api/tables/scores.csv", "/report"])
def test_results_are_only_read(client: TestClient, folder: Path, method: str, address: str) -> None:
    before = (folder / "scores.csv").read_bytes()
    refusal(client.request(method, address), 405)
    assert (folder / "scores.csv").read_bytes() == before


# --- who asks


def test_requests_of_other_pages_are_refused_everywhere(giving: TestClient, drops: Drops, folder: Path) -> None:
    for address in [*addresses(folder)[:8], "/static/app.js", "/nowhere"]:
        refusal(giving.get(address, headers={"Host": "evil.example"}), 403, "Host")
        refusal(giving.get(address, headers={"Origin": "http://evil.example"}), 403, "Origin")
        refusal(giving.get(address, headers={"Origin": "null"}), 403, "Origin")
    for address in ("/api/drops", "/api/drops/1/files", "/api/drops/1/start"):
        refusal(giving.post(address, headers={"X-Priorlens": ""}), 403, "x-priorlens")
        refusal(giving.post(address, headers={"Origin": "http://127.0.0.1:1"}), 403, "Origin")
    refusal(giving.delete("/api/drops/1", headers={"X-Priorlens": ""}), 403, "x-priorlens")
    assert drops.get(1) is None, "and nothing has come of them"


# --- damaged results


def damaged(tmp_path: Path, *, hide: bool = False) -> TestClient:
    results = write_results(tmp_path / "Klinik", ["Ann.png"], layers=True)
    (results / "maps/Ann.npy").write_bytes(b"\x93NUMPY")
    (results / "images/Ann.png").write_bytes(b"none")
    return page(shelf_of(results, hide=hide))


def test_a_damaged_layer_is_one_line(tmp_path: Path) -> None:
    client = damaged(tmp_path)
    for address in ("/api/cases/1", "/api/cases/1/layers/map.nii.gz", "/api/cases/1/layers/image.nii.gz"):
        refusal(client.get(address), 422, "Ann")
    assert client.get("/api/results").status_code == 200


def test_and_names_nothing_where_names_are_hidden(tmp_path: Path) -> None:
    client = damaged(tmp_path, hide=True)
    for address in ("/api/cases/1", "/api/cases/1/layers/map.nii.gz", "/api/cases/1/layers/image.nii.gz"):
        detail = refusal(client.get(address), 422)
        assert "Ann" not in detail and "Klinik" not in detail and str(tmp_path) not in detail


def test_a_defect_is_told_by_its_place_and_not_by_what_it_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object) -> None:
        raise KeyError("Änne")

    monkeypatch.setattr(server, "results", defect)
    detail = refusal(page(shelf_of(folder)).get("/api/results"), 500, "KeyError", "test_server.py", "report")
    assert "Änne" not in detail


# --- hidden names


def test_no_name_anywhere_where_names_are_hidden(tmp_path: Path, folder: Path) -> None:
    shelf = shelf_of(folder, hide=True)
    drops = drops_beside(shelf, tmp_path)
    client = page(shelf, drops)
    said = []
    for address in addresses(folder):
        found = client.get(address)
        if address.startswith(("/api/tables", "/report")) or address.endswith("overlay.png"):
            refusal(found, 404)
        elif found.headers["content-type"] == "application/json":
            said += texts(strict(found.content))
        elif found.headers["content-type"] == "application/gzip":
            said.append(gzip.decompress(found.content)[:352].decode("latin-1") + found.content[:40].decode("latin-1"))
    number = client.post("/api/drops").json()["drop"]
    bad = client.post(
        f"/api/drops/{number}/files", content=b"no image", headers={"X-File-Name": quote("Müller^Änne.png")}
    )
    said.append(refusal(bad, 415, "content is not that of an image"))
    client.post(f"/api/drops/{number}/files", content=PNG, headers={"X-File-Name": "broken.png"})
    client.post(f"/api/drops/{number}/start")
    said.append(finished(client, number)["words"])
    assert len(said) > 100
    for name in (
        "<script",
        "alert",
        "Änne",
        "neil",
        "broken",
        "Müller",
        "Bob",
        "Zoë",
        "Klinik",
        "secret-study",
        "/data",
        "/tmp",
    ):
        assert not [text for text in said if name in text], name
    drops.close()


# --- the API's own description


def test_the_api_is_described(client: TestClient) -> None:
    told = strict(client.get("/openapi.json").content)
    assert told["openapi"].startswith("3.") and told["info"]["title"] == "priorlens view"
    assert "not a medical device" in told["info"]["description"]
    paths = {(method.upper(), path) for path, methods in told["paths"].items() for method in methods}
    case, drop = "/api/cases/{number}", "/api/drops/{number}"
    assert paths == {
        *(("GET", "/api/results"), ("GET", case), ("GET", f"{case}/layers/{{layer}}.nii.gz")),
        *(("GET", f"{case}/overlay.png"), ("GET", "/api/tables/{name}"), ("POST", "/api/drops")),
        *(("POST", f"{drop}/files"), ("POST", f"{drop}/start"), ("GET", drop), ("DELETE", drop)),
    }
    schemas = told["components"]["schemas"]
    for reference in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(told)):
        assert reference in schemas
    names = [operation["operationId"] for methods in told["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names)


REFUSALS = {
    "/api/results": {"get": set()},
    "/api/cases/{number}": {"get": {"404"}},
    "/api/cases/{number}/layers/{layer}.nii.gz": {"get": {"404"}},
    "/api/cases/{number}/overlay.png": {"get": {"404"}},
    "/api/tables/{name}": {"get": {"404"}},
    "/api/drops": {"post": {"409", "507"}},
    "/api/drops/{number}/files": {"post": {"400", "404", "413", "415", "507"}},
    "/api/drops/{number}/start": {"post": {"404"}},
    "/api/drops/{number}": {"get": {"404"}, "delete": {"404"}},
}


def test_every_operation_tells_how_it_is_refused(client: TestClient) -> None:
    """In one line, each of them; FastAPI's own list of what is not valid is not what is sent."""
    told = strict(client.get("/openapi.json").content)
    assert told["paths"].keys() == REFUSALS.keys()
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            refused = {code: told for code, told in operation["responses"].items() if code >= "400"}
            assert refused.keys() == REFUSALS[path][method] | {"403", "422", "500"}, path
            for answer in refused.values():
                schema = answer["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Refusal"}, path
            assert operation["description"] and operation["tags"], path


@pytest.mark.parametrize(("name", "address"), [("Results", "/api/results"), ("Told", "/api/cases/3")])
def test_answers_have_just_the_fields_that_are_described(client: TestClient, name: str, address: str) -> None:
    schema = strict(client.get("/openapi.json").content)["components"]["schemas"][name]
    found = strict(client.get(address).content)
    assert found.keys() == schema["properties"].keys() == set(schema["required"])
