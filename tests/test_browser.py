"""The report in a real browser: nothing is asked for outside the file, nothing complains."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from irstd_edge.benchmarks.gate import judge
from irstd_edge.benchmarks.limits import Limits
from irstd_edge.benchmarks.report import write_report
from irstd_edge.benchmarks.summary import summaries
from irstd_edge.benchmarks.verdict import verdict_as_json
from irstd_edge.edge.frames import png_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--mute-audio"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-extensions", "--disable-default-apps", "--host-resolver-rules=MAP * ~NOTFOUND"),
    *("--enable-logging=stderr", "--disable-dev-shm-usage", "--disable-breakpad"),
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Of a bench whose INT8 loses one of two targets, with a picture."""
    import numpy as np

    accuracy = {
        **{"protocol": "native", "images": 2, "skipped": [], "targets": 2, "iou": None},
        **{"niou": None, "fa_per_mpx": 0.0, "fa_legacy_per_mpx": None, "precision_3px": 1.0},
        **{"recall_3px": 1.0, "f1_5px": 1.0, "position_px": 0.2, "undefined": []},
    }
    variants = [_variant("fp32", 20.0, {**accuracy, "pd": 1.0, "f1_3px": 1.0})]
    variants += [_variant("int8", 10.0, {**accuracy, "pd": 0.5, "f1_3px": 0.67})]
    bench = {
        "schema": "irstd-edge/bench/1",
        "machine": {"cpu": "Test CPU", "fingerprint": "0123456789abcdef"},
        "results": [
            {
                "model": "p2p",
                "bundle": "ab" * 32,
                "cost": {"params": 9, "macs": 9, "gflops": 1.8e-8, "input": [1, 1, 32, 32]},
                "variants": variants,
                "drift": [_drift()],
            }
        ],
    }
    verdict = judge(bench, Limits())
    picture = png_of(np.zeros((8, 8), np.uint8))
    path = tmp_path / "report.html"
    write_report(
        [bench],
        path,
        verdict=verdict_as_json(verdict),
        summaries=summaries(bench, verdict),
        pictures=[("lost, frame1", picture)],
    )
    return path


def _variant(name: str, p50: float, accuracy: dict[str, Any]) -> dict[str, Any]:
    nothing = ("not_measured", "power_w", "joule_per_frame", "memory_mb")
    return {
        **{"name": name, "runtime": "onnxruntime", "precision": name, "device": "cpu"},
        **{"measured": True, **dict.fromkeys(nothing), "bytes": 9},
        "latency_ms": {"p50": p50, "p90": p50, "p99": p50, "mean": p50, "samples": 20},
        "stages_ms": {"read": None, "pre": 1.0, "infer": p50, "post": 1.0},
        **{"fps": 1000 / p50, "fps_end_to_end": 1000 / (p50 + 2), "infer_ms": [p50] * 20},
        "accuracy": accuracy,
        "layers_ms": [{"layer": "/head/Conv", "op": "Conv", "ms": p50}],
    }


def _drift() -> dict[str, Any]:
    target = {"row": 3.0, "col": 4.0, "area_px": 4, "scr": 1.4, "score_reference": 0.9}
    found = {"matched_reference": True, "matched_candidate": True, "flip": None}
    lost = {"matched_reference": True, "matched_candidate": False, "flip": "lost"}
    return {
        **{"reference": "fp32", "candidate": "int8", "runtime": "onnxruntime"},
        **{"iou": None, "niou": None, "pd": -0.5, "f1_3px": -0.33, "f1_5px": -0.33},
        **{"fa_per_mpx": 0.0, "p_value": 1.0, "ci95": None, "false_alarms_gained": 0},
        **{"targets_lost": 1, "targets_gained": 0},
        "targets": [
            {"image": "frame0", **target, "score_candidate": 0.9, **found},
            {"image": "frame1", **target, "score_candidate": 0.1, **lost},
        ],
    }


def browse(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [CHROMIUM, *QUIET, profile, *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_page_opens_without_a_request_or_a_complaint(page: Path, tmp_path: Path) -> None:
    log = tmp_path / "net.json"
    done = browse(page, f"--log-net-log={log}", "--dump-dom")
    assert done.returncode == 0, done.stderr
    for words in ("✗ Failed", "do not ship it, the gate failed", "Layer by layer", "lost, frame1"):
        assert words in done.stdout
    assert "CONSOLE" not in done.stderr, done.stderr
    events = json.loads(log.read_text())["events"]
    asked = {e["params"]["url"] for e in events if "url" in e.get("params", {})}
    from_page = {e["params"].get("initiator") for e in events if "url" in e.get("params", {})}
    assert "file://" not in from_page, asked
    assert not {url for url in asked if "report" in url and not url.startswith("file:")}


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_drawn_at_the_width_of_a_phone_and_of_a_desk(
    page: Path, tmp_path: Path, width: int
) -> None:
    shot = tmp_path / "shot.png"
    done = browse(page, f"--window-size={width},900", f"--screenshot={shot}")
    assert done.returncode == 0, done.stderr
    assert shot.stat().st_size > 10_000


PROBE = """<script>
addEventListener("load", () => setTimeout(() => {
  const root = document.documentElement, open = performance.getEntriesByType("navigation")[0];
  document.querySelectorAll("details").forEach((each) => { each.open = true; });
  const beyond = [...document.querySelectorAll("body *")].filter((each) =>
    !each.closest(".scroll, svg") && each.getBoundingClientRect().right > innerWidth + 1);
  const reach = [...document.querySelectorAll("a[href], summary, [tabindex]")];
  const outlines = reach.map((each) => {
    each.focus({focusVisible: true});
    return document.activeElement === each && getComputedStyle(each).outlineStyle !== "none";
  });
  const silent = [...document.querySelectorAll("img, svg")].filter((each) =>
    !each.alt && !each.getAttribute("aria-label") && !each.closest("[aria-hidden]"));
  const wide = [...document.querySelectorAll(".scroll")].filter((each) => each.tabIndex !== 0);
  const found = {
    width: innerWidth, content: root.scrollWidth, loaded_ms: open.loadEventEnd,
    beyond: beyond.map((each) => each.outerHTML.slice(0, 90)), reach: reach.length,
    focused: outlines.filter(Boolean).length, silent: silent.length, unreachable: wide.length,
    lang: root.lang, headings: [...document.querySelectorAll("h1, h2, h3")].map((h) => h.tagName),
  };
  const told = document.createElement("script");
  told.type = "application/json";
  told.id = "probe";
  told.textContent = JSON.stringify(found);
  top.document.body.append(told);
}, 50));
</script>"""


def probed(page: Path, width: int, *options: str) -> dict[str, Any]:
    """What a script finds that is put into a copy of the page, whose policy would forbid it.

    In a frame of that width, as no window is narrower than 500 px.
    """
    text = page.read_text()
    policy = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', text)
    assert policy is not None
    copy = page.with_name("probed.html")
    inside = text.replace(policy[0], "").replace("</body>", f"{PROBE}</body>")
    style = f"width: {width}px; height: 900px; border: 0"
    copy.write_text(f'<iframe style="{style}" srcdoc="{html.escape(inside)}"></iframe>')
    done = browse(copy, "--virtual-time-budget=3000", "--dump-dom", *options)
    found = re.search(r'<script type="application/json" id="probe">(.*?)</script>', done.stdout)
    assert found is not None, done.stderr
    return dict(json.loads(html.unescape(found[1])))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_cut_off_and_all_is_in_reach(page: Path, width: int, dark: bool) -> None:
    mode = ["--blink-settings=preferredColorScheme=0"] if dark else []
    found = probed(page, width, *mode)
    assert found["width"] == width >= found["content"]
    assert found["beyond"] == []
    # By keyboard: every table that scrolls and every fold, each with an outline when it has focus.
    assert found["reach"] == found["focused"] > 3
    assert (found["silent"], found["unreachable"], found["lang"]) == (0, 0, "en")
    assert found["headings"][0] == "H1" and found["headings"].count("H1") == 1
    assert found["loaded_ms"] < 1000
