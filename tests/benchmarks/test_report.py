import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from irstd_edge.benchmarks.drift import METRICS
from irstd_edge.benchmarks.report import report_html, write_report
from irstd_edge.benchmarks.report_drift import MAX_TARGET_ROWS
from irstd_edge.benchmarks.report_page import VOID, Html, element, table
from irstd_edge.benchmarks.report_pictures import MAX_BYTES
from irstd_edge.edge.types import IrstdError

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'&"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
VERDICT = {
    "passed": False,
    "checks": [
        {
            "name": "drift.f1_3px",
            "model": "p2p",
            "variant": "int8",
            "runtime": "openvino",
            "reference": 0.9442,
            "candidate": 0.9421,
            "limit": -0.005,
            "passed": True,
            "why": "F1 changed by -0.0021",
        },
        {
            "name": "drift.net_targets_lost",
            "model": "p2p",
            "variant": "int8",
            "runtime": "openvino",
            "reference": 4,
            "candidate": 2,
            "limit": 1,
            "passed": False,
            "why": "2 targets lost on balance",
        },
    ],
}


class Reader(HTMLParser):
    """Checks nesting, and keeps the tags with their attributes and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"{tag} repeats an attribute"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == [], "every element is closed"
    return reader


def text_of(page: str) -> str:
    return " ".join(" ".join(read(page).words).split())


def test_the_page_shows_what_the_bench_holds(bench_json: dict[str, Any]) -> None:
    text = text_of(report_html([bench_json], VERDICT, ["p2p: do not ship it"]))

    for words in ("Failed: 1 of 2 checks", "p2p: do not ship it", "2 targets lost on balance"):
        assert words in text
    for words in (
        "240,366 parameters, 1.530 GMACs = 3.060 GFLOPs (2 per MAC)",
        "GFLOPs = 2 × GMACs",
    ):
        assert words in text
    for words in ("94.21", "2.50×", "~20.0", "−2 +1", "45.5", "310 kB", "16 frames of the data"):
        assert words in text
    for words in ("int8 against fp32, openvino", "McNemar p = 1", "−1.00 to +0.40 points"):
        assert words in text
    for words in ("Test CPU", "x86_64+avx2", "0123456789abcdef"):
        assert words in text


def test_the_page_is_whole_and_asks_for_nothing_outside(bench_json: dict[str, Any]) -> None:
    page = report_html([bench_json], VERDICT, ["a sentence"], [("lost", PNG)])
    reader = read(page)

    links = [
        value or ""
        for _, attributes in reader.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "xlink:href", "action", "data", "poster")
    ]
    assert links
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert not re.search(r"(?i)https?:|url\(|@import", page)
    assert {"script", "link", "iframe", "object", "form"}.isdisjoint(tag for tag, _ in reader.tags)
    (policy,) = [m for m in reader.all("meta") if m.get("http-equiv")]
    assert (policy["content"] or "").startswith("default-src 'none'")
    assert len(page) < 3_000_000


def test_the_page_can_be_heard_and_read_on_a_phone(bench_json: dict[str, Any]) -> None:
    page = report_html([bench_json], VERDICT, [], [("lost", PNG)])
    reader = read(page)

    assert reader.all("html") == [{"lang": "en"}]
    assert len(reader.all("h1")) == 1
    assert any(m.get("name") == "viewport" for m in reader.all("meta"))
    assert "prefers-color-scheme: dark" in page
    assert len(reader.all("caption")) == len(reader.all("table")) > 5
    assert {th.get("scope") for th in reader.all("th")} == {"col", "row"}
    assert all(img.get("alt") for img in reader.all("img"))
    charts = [svg for svg in reader.all("svg") if svg.get("aria-hidden") != "true"]
    assert len(charts) == 5
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in charts)
    assert "int8 openvino p50 20.0 ms" in (charts[0]["aria-label"] or "")


def spoiled(value: Any) -> Any:
    """The same value with every text in it replaced, but the schema."""
    if isinstance(value, dict):
        return {k: v if k == "schema" else spoiled(v) for k, v in value.items()}
    if isinstance(value, list):
        return [spoiled(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_names_stay_text(bench_json: dict[str, Any]) -> None:
    plain = read(report_html([bench_json], VERDICT, ["a"], [("b", PNG)]))
    bench, verdict = spoiled(bench_json), spoiled(VERDICT)
    for drift in bench["results"][0]["drift"]:
        drift |= {"targets_lost": 0, "targets_gained": 0}  # its flips are hostile words now

    page = report_html([bench], verdict, [HOSTILE], [(HOSTILE, PNG)])

    reader = read(page)
    assert "<script" not in page
    assert "<img src=x" not in page
    assert {tag for tag, _ in reader.tags} <= {tag for tag, _ in plain.tags}
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
    assert HOSTILE in "".join(reader.words)


def test_without_a_verdict_the_page_says_how_to_get_one(bench_json: dict[str, Any]) -> None:
    text = text_of(report_html([bench_json]))
    assert "Not judged" in text
    assert "irstd-edge gate BENCH.json" in text


def test_a_verdict_that_passed(bench_json: dict[str, Any]) -> None:
    checks = [{**check, "passed": True} for check in VERDICT["checks"]]  # type: ignore[attr-defined]
    text = text_of(report_html([bench_json], {"passed": True, "checks": checks}))
    assert "✓ Passed: 2 checks" in text
    assert "Failed" not in text


def test_flipped_targets_come_first(bench_json: dict[str, Any]) -> None:
    page = report_html([bench_json])
    section = page[page.index("Target by target (3 flipped)") :]
    order = re.findall(r'<th scope="row">(frame\d)</th>', section)[:4]
    assert order == ["frame3", "frame1", "frame2", "frame0"]


def test_targets_fall_into_buckets(bench_json: dict[str, Any]) -> None:
    """Areas 1, 5, 9, 13 px; 1 and 3 are lost, 2 is gained."""
    page = report_html([bench_json])
    buckets = page[page.index("By area of the target") : page.index("By signal-to-clutter")]
    rows = re.findall(r'<th scope="row">(.*?)</th>' + r"<td[^>]*>(\d+)</td>" * 3, buckets)
    assert rows == [("0 to 9", "3", "1", "1"), ("9 to 25", "1", "1", "0")]


@pytest.fixture
def with_curves(bench_json: dict[str, Any], make: SimpleNamespace) -> dict[str, Any]:
    """INT8 finds less than FP32 at its threshold."""
    for variant in bench_json["results"][0]["variants"]:
        found = 0.99 if variant["name"] == "fp32" else 0.97
        variant["accuracy"] |= {"threshold": 0.5, "curve": make.curve(found)}
    return bench_json


def test_both_curves_of_every_variant_are_drawn(with_curves: dict[str, Any]) -> None:
    page = report_html([with_curves])
    labels = [svg.get("aria-label") or "" for svg in read(page).all("svg")]
    (recall,) = [label for label in labels if label.startswith("Precision against recall")]
    (alarms,) = [label for label in labels if label.startswith("Pd against false alarms")]
    assert "fp32 onnxruntime recall 99.00 %, precision 90.00 %" in recall
    assert "int8 openvino 1.25 false alarms per Mpx, Pd 97.00 %" in alarms
    strokes = re.findall(r'<polyline points="[^"]+" class="curve (\w+) (\w+)">', page)
    assert strokes == 2 * [(k, s) for s in ("solid", "dashed") for k in ("float", "int")]
    assert "int8 openvino: R 97.00 %, P 90.00 %" in text_of(page)


def test_a_curve_stays_inside_its_axes(with_curves: dict[str, Any]) -> None:
    """Of FP32's places the one at 0.9 and the end at 1 lie below the axis of Pd, 80 %."""
    page = report_html([with_curves])
    section = page[page.index("<figcaption>Pd against false alarms") :]
    corners = re.findall(r'<polyline points="([^"]+)"', section)[0].split()
    places = [tuple(float(at) for at in corner.split(",")) for corner in corners]
    assert len(places) == 2 + 1  # exactly 80 % is on it
    assert all(40 <= x <= 340 and 18 <= y <= 230 for x, y in places)
    assert places == sorted(places, reverse=True), "fewer false alarms to the left"
    assert [y for _, y in places] == sorted(y for _, y in places), "and fewer targets"


def test_without_curves_or_undefined_throughout_there_is_no_chart_of_them(
    with_curves: dict[str, Any],
) -> None:
    for variant in with_curves["results"][0]["variants"]:
        curve = variant["accuracy"]["curve"]
        curve |= {name: [None] * 4 for name in ("precision_3px", "recall_3px", "pd")}
    assert "<polyline" not in report_html([with_curves])
    for variant in with_curves["results"][0]["variants"]:
        del variant["accuracy"]["curve"]
    assert "<polyline" not in report_html([with_curves])


def test_no_false_alarm_at_all_is_drawn_at_the_edge(with_curves: dict[str, Any]) -> None:
    for variant in with_curves["results"][0]["variants"]:
        variant["accuracy"]["curve"]["fa_per_mpx"] = [0.0] * 4
    page = report_html([with_curves])
    section = page[page.index("<figcaption>Pd against false alarms") :]
    corners = re.findall(r'<polyline points="([^"]+)"', section)[0].split()
    assert {corner.split(",")[0] for corner in corners} == {"40.0"}


def test_the_page_says_whether_the_threshold_moved(
    make: SimpleNamespace, bench_json: dict[str, Any]
) -> None:
    assert "At the false alarms" not in text_of(report_html([bench_json]))
    bench_json["results"][0]["drift"][1]["pd_at_fa"] = [make.equal_fa()]
    text = text_of(report_html([bench_json]))
    assert "int8 finds 99.47 % (threshold 0.450): the threshold moved" in text


def test_the_interval_of_masks_is_of_their_iou_and_pd(bench_json: dict[str, Any]) -> None:
    drift = bench_json["results"][0]["drift"][1]
    drift |= {"iou": -0.003, "ci95": [-0.01, 0.0], "ci95_of": dict.fromkeys(METRICS)}
    drift["ci95_of"]["iou"] = [-0.005, -0.001]
    words = "95 % interval of the change of IoU −0.50 to −0.10 and of Pd −1.00 to +0.00 points"
    assert words in text_of(report_html([bench_json]))
    drift |= {"iou": None}
    del drift["ci95_of"]
    words = "95 % interval of the change of F1 −1.00 to +0.00 points"
    assert words in text_of(report_html([bench_json]))


def test_what_noise_does_is_told_before_drift(bench_json: dict[str, Any], noise: Any) -> None:
    bench_json["results"][0]["noise"] = noise
    text = text_of(report_html([bench_json]))
    words = "For scale: noise of 0.5 counts in the frames makes fp32 on onnxruntime lose 1 and gain"
    assert 0 < text.index(words) < text.index("int8 against fp32")


def test_what_comes_too_late_at_the_sensors_rate_is_told(bench_json: dict[str, Any]) -> None:
    assert "missed" not in text_of(report_html([bench_json])).split("Variants")[1].split("p50")[0]
    counts = {"arrived": 120, "detected": 100, "missed": 7, "dropped": 20, "queued": 31}
    ages = {"age_ms": {"p50": 24.04, "p99": 41.5}, "ages_ms": [24.04]}
    bench_json["results"][0]["variants"][1]["pace"] = {"rate_hz": 50, **counts, **ages}
    text = text_of(report_html([bench_json]))
    assert "rate Hz frames missed dropped queued age p50 ms age p99 ms" in text
    assert "50 120 7 20 31 24.0 41.5" in text


def test_a_bench_without_data_or_times_is_still_a_page(bench_json: dict[str, Any]) -> None:
    result = bench_json["results"][0]
    result["drift"] = []
    for variant in result["variants"]:
        variant |= {"accuracy": None, "infer_ms": None}
    assert "not compared" in text_of(report_html([bench_json]))

    nothing = dict.fromkeys(("latency_ms", "stages_ms", "fps", "fps_end_to_end", "bytes"))
    result["variants"] = [{**variant, **nothing} for variant in result["variants"]]
    result["cost"] |= dict.fromkeys(("params", "macs", "gflops"))
    reader = read(report_html([bench_json]))
    assert reader.all("svg") == []

    result["variants"] = []
    assert "p2p" in text_of(report_html([bench_json]))


def test_a_projection_is_marked_and_never_in_a_chart(bench_json: dict[str, Any]) -> None:
    result = bench_json["results"][0]
    result["variants"][3] |= {"measured": False, "device": "orin-nano-8gb"}
    page = report_html([bench_json])
    assert '<span class="pill">projected</span>' in page
    assert not any(
        "orin" in (svg["aria-label"] or "") for svg in read(page).all("svg") if len(svg) > 2
    )
    assert "40.0 ms" in page[page.index('class="tiles"') : page.index("Variants side by side")]


def test_many_targets_and_times_keep_the_page_small(bench_json: dict[str, Any]) -> None:
    for drift in bench_json["results"][0]["drift"]:
        drift["targets"] = drift["targets"] * 5000
        drift["targets_lost"] *= 5000
        drift["targets_gained"] *= 5000
    for variant in bench_json["results"][0]["variants"]:
        variant["infer_ms"] = variant["infer_ms"] * 5000
    page = report_html([bench_json])
    assert len(page) < 3_000_000
    assert f"{MAX_TARGET_ROWS} of 20000 targets" in page


def test_times_of_calls_of_several_frames_are_told_as_such(bench_json: dict[str, Any]) -> None:
    result = bench_json["results"][0]
    result["timed_on"] = "random frames"
    for variant in result["variants"]:
        variant["batch"] = 4
        variant["stages_ms"] = {"read": 8.0, "pre": 4.0, "infer": 80.0, "post": 8.0}
    page = report_html([bench_json])
    assert "Timed on random frames, 4 a call." in page
    assert "Mean time of a frame: fp32 onnxruntime 25.0 ms" in page


def test_frames_that_were_not_scored_are_named(bench_json: dict[str, Any]) -> None:
    for variant in bench_json["results"][0]["variants"]:
        skip = {"name": "a", "reason": "the mask has other pixels"}
        variant["accuracy"] |= {"skipped": [skip]}
    assert report_html([bench_json]).count("Skipped a: the mask has other pixels.") == 1


def test_a_figure_that_is_missing_is_told_by_its_reason(bench_json: dict[str, Any]) -> None:
    result = bench_json["results"][0]
    for drift in result["drift"]:
        drift["f1_3px"] = drift["iou"] = None
    assert "undefined" in read(report_html([bench_json])).words
    result["drift"] = []
    assert "no FP32 beside it" in read(report_html([bench_json])).words
    for variant in result["variants"]:
        variant["accuracy"] = None
    assert "not measured" in read(report_html([bench_json])).words


def test_pictures_are_embedded_as_they_are_and_as_many_as_fit(bench_json: dict[str, Any]) -> None:
    large = PNG + bytes(MAX_BYTES)
    page = report_html([bench_json], pictures=[("lost <b>", PNG), ("too large", large)])
    source = read(page).all("img")[0]["src"] or ""
    assert base64.b64decode(source.partition(",")[2]) == PNG
    assert "lost &lt;b&gt;" in page
    assert "1 more did not fit" in page
    with pytest.raises(IrstdError, match="lost: the picture is not a PNG"):
        report_html([bench_json], pictures=[("lost", b"<svg/>")])


def test_several_benches_stand_one_after_the_other(bench_json: dict[str, Any]) -> None:
    other = json.loads(json.dumps(bench_json))
    other["machine"]["cpu"] = "Another CPU"
    text = text_of(report_html([bench_json, other]))
    assert text.index("Test CPU") < text.index("Another CPU")


def test_malformed_input_is_one_line_and_leaves_no_file(
    tmp_path: Path, bench_json: dict[str, Any]
) -> None:
    path = tmp_path / "report.html"
    with pytest.raises(IrstdError, match="BENCH.json: none is given"):
        write_report([], path)
    with pytest.raises(IrstdError, match="verdict: not of the gate"):
        write_report([bench_json], path, verdict={"passed": True})
    bench_json["results"][0]["variants"][0]["fps"] = "<b>"
    with pytest.raises(IrstdError, match=r"bench 1: results\[0\].variants\[0\].fps"):
        write_report([bench_json], path)
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_the_page(tmp_path: Path, bench_json: dict[str, Any]) -> None:
    write_report([bench_json], tmp_path / "r.html", verdict=VERDICT, summaries=["so"])
    written = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert written == report_html([bench_json], VERDICT, ["so"])


def test_elements_escape_text_and_attributes() -> None:
    assert element("p", "a < b", Html("<b>x</b>"), title='"q"', class_="c", open=None) == (
        '<p title="&quot;q&quot;" class="c">a &lt; b<b>x</b></p>'
    )
    assert element("line", x1=1.0, y1=2.346, aria_label="l") == (
        '<line x1="1" y1="2.35" aria-label="l"></line>'
    )


def test_a_table_names_its_rows_and_columns() -> None:
    grid = table("Caption", ("name", "n"), [("a", "1")], texts=1)
    assert "<caption>Caption</caption>" in grid
    assert '<th scope="col" class="n">n</th>' in grid
    assert '<th scope="row">a</th><td class="n">1</td>' in grid


def test_points_have_a_position_and_masks_pixels_that_are_false(make_bench: Any) -> None:
    masks, points = (report_html([make_bench(model)]) for model in ("mshnet", "p2p"))
    assert "Fa px /Mpx" in masks and "position px" not in masks
    assert "Fa /Mpx" in points and "position px" in points and "Fa px" not in points
