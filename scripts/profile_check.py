"""Compares the tables of `pagoda bench profile` with the data routes of torch-tb-profiler.

usage: profile_check.py DIR [--screenshots DIR --polyfill FILE]

DIR holds folders that --profile-dir named, each with what was printed as table.txt. TensorBoard
serves DIR; the plugin's own routes must give the printed numbers: calls and time of every operation
(Operator), busy time and step time (Overview), calls, time and occupancy of every kernel (Kernel),
and all events of the file (Trace).
"""
import argparse
import gzip
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

PLUGIN = "/data/plugin/pytorch_profiler/"


class Plugin:
    def __init__(self, logdir):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.log = open(logdir / "tensorboard.log", "w+")
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", str(self.port), "--load_fast", "false"],
            stdout=self.log, stderr=self.log)

    def get(self, route, **query):
        url = f"http://127.0.0.1:{self.port}{PLUGIN}{route}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=60) as response:
            data = response.read()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return json.loads(data)

    def runs(self, want, seconds=120):
        """Waits until as many runs are loaded."""
        end = time.time() + seconds
        while time.time() < end and self.server.poll() is None:
            try:
                answer = self.get("runs")
                if len(answer["runs"]) >= want and not answer["loading"]:
                    return sorted(answer["runs"])
            except OSError:
                pass
            time.sleep(0.5)
        self.log.seek(0)
        sys.exit("TensorBoard did not load the traces:\n" + self.log.read()[-3000:])

    def close(self):
        self.server.terminate()
        self.server.wait()


def sections(table):
    """Splits what was printed into parts: {folder: {...}}."""
    out, part = {}, None
    for line in table.splitlines():
        head = re.match(r"(prefill), (\d+) tokens: (\d+) steps|(decode), batch (\d+): (\d+) steps", line)
        if head:
            g = head.groups()
            part = {"steps": int(g[2] or g[5]), "ops": {}, "kernels": [], "idle": 0.0}
            out[f"prefill-{g[1]}" if g[0] else f"decode-batch-{g[4]}"] = part
        elif part is None:
            continue
        elif m := re.search(r"busy (\d+) %.*?(?:occupancy (\d+) %|$)", line):
            part["busy"], part["occupancy"] = float(m[1]), m[2] and float(m[2])
        elif m := re.search(r"gaps .*?(?:no work ([\d.]+) %)?$", line):
            part["idle"] = float(m[1] or 0)
        elif m := re.match(r" (\S+)\s+bound by \w+\s+(\d+)\s+([\d.]+)", line):
            part["ops"][m[1]] = (int(m[2]), 1000 * float(m[3]))
        elif m := re.match(r" (\S+)\s+(\d+)\s+([\d.]+)\s+(\d+)\s+(\d+)\s+([\d.]+)\s+(\d+) $", line):
            part["kernels"].append((m[1], int(m[2]), 1000 * float(m[3]), int(m[4]), int(m[5]), float(m[6]), float(m[7])))
    return out


class Check:
    def __init__(self):
        self.failed = 0
        self.count = 0

    def near(self, what, printed, plugin, tolerance):
        self.count += 1
        if abs(printed - plugin) > tolerance:
            self.failed += 1
            print(f"DIFFERS  {what}: printed {printed:g}, plugin {plugin:g}")

    def true(self, what, ok):
        self.near(what, 1, 1 if ok else 0, 0)


def check_run(plugin, check, run, part, path):
    views = plugin.get("views", run=run)
    worker = plugin.get("workers", run=run, view="Overview")[0]
    spans = plugin.get("spans", run=run, worker=worker)
    common = {"run": run, "worker": worker, "span": spans[0] if spans else ""}
    gpu = "Kernel" in views
    for view in ["Overview", "Operator", "Trace"]:
        check.true(f"{run}: has view {view}", view in views)
    check.true(f"{run}: Kernel view for a GPU alone", gpu == bool(part["kernels"]))

    # Operator: one µs a total is what rounding may cost; an event may be a ns short.
    rows = plugin.get("operation/table", view="Operator", group_by="Operation", **common)["data"]
    rows = {r["name"]: r for r in rows}
    check.true(f"{run}: Operator has the same operations", rows.keys() == part["ops"].keys())
    key = "device_self_duration" if gpu else "host_self_duration"
    for name, (calls, total) in part["ops"].items():
        if name in rows:
            check.near(f"{run}: Operator, {name}, calls", calls, rows[name]["calls"], 0)
            check.near(f"{run}: Operator, {name}, µs", total, rows[name][key], 1.5 + calls * 0.001)

    # Overview: the share in which the device ran something, of the steps' time.
    overview = plugin.get("overview", view="Overview", **common)
    check.near(f"{run}: Overview, steps", part["steps"], len(overview["steps"]["rows"]), 0)
    if not gpu:
        busy = {c["name"]: c["extra"] for c in overview["performance"][0]["children"]}["CPU Exec"]
        check.near(f"{run}: Overview, busy %", part["busy"], busy * (1 - part["idle"] / 100), 1)
    else:
        summary = {m["title"]: m["value"] for m in overview["gpu_metrics"]["data"]}
        check.near(f"{run}: Overview, GPU utilization %", part["busy"], float(summary["GPU Utilization"].split()[0]), 0.51)
        check.near(f"{run}: Overview, achieved occupancy %", part["occupancy"], float(summary["Est. Achieved Occupancy"].split()[0]), 0.51)
        check_kernels(plugin, check, run, part, common)

    # Trace: every event of the file.
    trace = plugin.get("trace", **common)
    own = json.loads(path.read_text())["traceEvents"]
    events = [e for e in trace["traceEvents"] if e["ph"] != "C"]
    check.near(f"{run}: Trace, events", len(own), len(events), 0)
    print(f"{run}: {', '.join(views)}; {len(part['ops'])} operations, {len(part['kernels'])} kernels, {len(events)} events")


def check_kernels(plugin, check, run, part, common):
    table = plugin.get("kernel/table", view="Kernel", group_by="Kernel", **common)["data"]
    names = [c["name"] for c in table["columns"]]
    rows = {r[0]: dict(zip(names, r)) for r in table["rows"]}
    by_op = plugin.get("kernel", view="Kernel", **common)["total"]["rows"]
    for name, calls, total, _, _, per_sm, occupancy in part["kernels"]:
        row = rows.get(name)
        check.true(f"{run}: Kernel has {name}", row is not None and any(r[0] == name for r in by_op))
        if row:
            check.near(f"{run}: Kernel, {name}, calls", calls, row["Calls"], 0)
            check.near(f"{run}: Kernel, {name}, µs", total, row["Total Duration (us)"], 1.5 + calls * 0.001)
            check.near(f"{run}: Kernel, {name}, CTAs/SM", per_sm, row["Mean Blocks Per SM"], 0.011)
            check.near(f"{run}: Kernel, {name}, occupancy %", occupancy, row["Mean Est. Achieved Occupancy (%)"], 0.51)


# Stands for Google's chart library, which only the network has: the pages wait for it.
CHARTS = """(() => {
const any = () => new Proxy(function () {}, {get: (t, k) => k === Symbol.toPrimitive ? () => 0 : k === 'then' ? undefined : any(), apply: () => 0, construct: () => any()});
function Chart(el) { return {draw() { if (el) el.textContent = '[Google chart: needs the network]' }, clearChart() {}, setSelection() {}, getSelection() { return [] }} }
window.google = {charts: {load: () => Promise.resolve(), setOnLoadCallback: f => setTimeout(f, 0)},
  visualization: new Proxy({}, {get: (t, k) => /Chart$|^Table$|^Timeline$/.test(k) ? Chart : any()})};
})();"""


def screenshots(plugin, runs, out, polyfill):
    """Takes a picture of every view that renders without a network; the trace viewer wants an old polyfill."""
    from playwright.sync_api import sync_playwright
    chrome = shutil.which("chromium") or shutil.which("google-chrome") or sys.exit("--screenshots needs chromium")
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chrome, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.route("**/*gstatic.com/**", lambda r: r.fulfill(body=CHARTS, content_type="application/javascript"))
        page.route("**/webcomponents.min.js", lambda r: r.fulfill(path=polyfill, content_type="application/javascript"))
        page.goto(f"http://127.0.0.1:{plugin.port}/#pytorch_profiler")
        page.wait_for_timeout(10000)
        frame = page.frames[-1]

        def choose(nth, text):
            frame.locator("[role=button][aria-haspopup=listbox]").nth(nth).click()
            page.wait_for_timeout(800)
            frame.get_by_role("option", name=text, exact=True).click()
            page.wait_for_timeout(2500)

        for run, (part, _) in runs.items():
            choose(0, run)
            for view in ["Overview", "Operator"] + ["GPU Kernel"] * bool(part["kernels"]) + ["Trace"]:
                choose(1, view)
                page.wait_for_timeout(15000 if view == "Trace" else 3000)
                picture = out / f"{run}-{view}.png".replace("/", "-").replace(" ", "-")
                page.screenshot(path=picture)
                print(picture)
        browser.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--screenshots")
    parser.add_argument("--polyfill", help="webcomponents.min.js 0.7.24, for --screenshots")
    args = parser.parse_args()
    parts = {}
    for table in sorted(args.dir.glob("*/table.txt")):
        for folder, part in sections(table.read_text()).items():
            trace = sorted((table.parent / folder).glob("*.pt.trace.json"))
            if not trace:
                sys.exit(f"{table}: no trace of {folder}")
            parts[f"{table.parent.name}/{folder}"] = (part, trace[-1])
    if not parts:
        sys.exit(f"{args.dir}: no table.txt with parts in it")
    plugin, check = Plugin(args.dir), Check()
    try:
        for run in plugin.runs(len(parts)):
            check_run(plugin, check, run, *parts[run])
        if args.screenshots:
            screenshots(plugin, parts, args.screenshots, args.polyfill)
    finally:
        plugin.close()
    log = (args.dir / "tensorboard.log").read_text()
    check.true("the plugin's log has no errors", not re.search(r"Error in input data|don't correlate|different external id|Traceback", log))
    print(f"{check.count - check.failed}/{check.count} numbers agree")
    sys.exit(check.failed > 0)


if __name__ == "__main__":
    main()
