"""What operators point at the series: the exposition as others parse it, PgDog's names, alerts, the
dashboard and the Datadog configuration against what is really served."""

import importlib.machinery
import importlib.util
import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from support.machine import HOST, ROOT, free_port, stop_process, tied, wait_until
from support.raw_client import ServerError
from support.suite import eventually

HERE = ROOT / "deploy" / "observability"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None,
                                    reason="promtool is missing (Debian package prometheus)")


def promtool(*arguments, text=None, folder=HERE):
    done = subprocess.run(["promtool"] + [str(a) for a in arguments], input=text, cwd=folder,
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
                          check=False)
    return done.returncode, done.stdout


def declared(kind=None):
    """Names of docs/metrics.md, which test_operation compares with what processes serve."""
    own = (ROOT / "docs" / "metrics.md").read_text().split("## Names that PgDog uses")[0]
    return {name for name, its in re.findall(r"^\| `(\w+)` \| (\w+) \|", own, re.M)
            if kind in (None, its)}


def names_in(query):
    """The series a query is about."""
    found = set(re.findall(r"\b((?:pgsled|process)_\w+)", re.sub(r'"[^"]*"', "", query)))
    return {re.sub("_(bucket|sum|count)$", "", name) if name not in declared() else name
            for name in found}


def page(suite, openmetrics=False):
    accept = "application/openmetrics-text; version=1.0.0" if openmetrics else "text/plain"
    asked = urllib.request.Request(f"http://{HOST}:{suite.metrics_port}/metrics",
                                   headers={"Accept": accept})
    with urllib.request.urlopen(asked, timeout=5) as got:
        return got.headers["Content-Type"], got.read().decode()


def own_series(text):
    """The exposition without PgDog's names, which break the rules that pgsled's own keep."""
    return "".join(line + "\n" for line in text.splitlines()
                   if re.match(r"(# (HELP|TYPE) )?(pgsled|process)_", line))


def test_no_gauge_is_called_as_a_counter():
    """OpenMetrics knows counters without their _total: a_total and a would be one family."""
    assert not {re.sub("_total$", "", name) for name in declared("counter")} & declared("gauge")


# alerts, dashboard, Datadog

@needs_promtool
def test_prometheus_configuration_is_valid():
    status, said = promtool("check", "config", "prometheus.yml")
    assert status == 0, said


@needs_promtool
@pytest.mark.smoke
def test_alerts_fire_when_they_should():
    status, said = promtool("test", "rules", "alerts_test.yml")
    assert status == 0, said


def test_every_alert_is_tested_and_about_series_that_exist():
    text = (HERE / "alerts.yml").read_text()
    alerts = re.findall(r"- alert: (\w+)", text)
    tested = re.findall(r'alertname="(\w+)"}', (HERE / "alerts_test.yml").read_text())
    assert len(alerts) > 15 and sorted(alerts) == sorted(tested)
    queries = re.findall(r"expr: >-\n((?: {10}.*\n)+)", text)
    assert len(queries) == len(alerts)
    for query in queries:
        assert names_in(query) <= declared(), query


def dashboard_queries():
    shown = json.loads((HERE / "grafana" / "pgsled.json").read_text())
    return [target["expr"] for one in shown["panels"] for target in one.get("targets", [])]


def test_dashboard_is_what_its_list_says():
    loader = importlib.machinery.SourceFileLoader("dashboard", str(HERE / "make_dashboard"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("dashboard", loader))
    loader.exec_module(module)
    assert (HERE / "grafana" / "pgsled.json").read_text() == module.text(), "run make_dashboard"


def test_dashboard_shows_series_that_exist():
    queries = dashboard_queries()
    assert len(queries) > 40
    shown = set()
    for query in queries:
        assert names_in(query) <= declared(), query
        shown |= names_in(query)
    assert declared("histogram") <= shown


@needs_promtool
def test_dashboard_queries_are_promql(tmp_path):
    rules = "groups:\n- name: dashboard\n  rules:\n"
    for at, query in enumerate(dashboard_queries()):
        query = query.replace("$__rate_interval", "1m").replace("$service", ".*")
        rules += f"  - record: q{at}\n    expr: '{query.replace('$instance', '.*')}'\n"
    (tmp_path / "rules.yml").write_text(rules)
    status, said = promtool("check", "rules", tmp_path / "rules.yml")
    assert status == 0, said


def test_datadog_asks_for_every_series():
    text = (HERE / "datadog" / "openmetrics.yaml").read_text()
    asked = set(re.findall(r"^ {6}- (\w+): [\w.]+$", text, re.M))
    counters = declared("counter")
    wanted = {re.sub("_total$", "", name) if name in counters else name for name in declared()}
    assert asked == wanted - {"pgsled_build_info"}, asked ^ wanted


def test_compose_file_fits_the_suite():
    deploy = HERE.parent
    text = (deploy / "docker-compose.observability.yml").read_text()
    mounted = re.findall(r"^ +- (\./\S+?):/", text, re.M)
    assert len(mounted) == 5
    for source in mounted:
        assert (deploy / source).is_file(), source
    service, port = re.search(r'targets: \["(\w+):(\d+)"\]',
                              (HERE / "prometheus.yml").read_text()).groups()
    assert re.search(rf"^  {service}:$", (deploy / "docker-compose.yml").read_text(), re.M)
    settings = (deploy / "compose" / "pgdog.toml").read_text()
    assert f"openmetrics_port = {port}\n" in settings


# the exposition

@pytest.fixture(scope="module")
def busy(server):
    """A suite that has done a little of everything, with PgDog's namespace."""
    from support.suite import Suite
    with Suite(server, general={"openmetrics_namespace": "pgdog"}) as suite:
        client = suite.raw()
        for _ in range(20):
            client.query("SELECT 1")
        client.query("SELECT pg_sleep(0.3)")
        for _ in range(3):
            with pytest.raises(ServerError):
                client.query("SELECT 1/0")
        with pytest.raises(ServerError):
            suite.raw(password="wrong")
        yield suite
        client.close()


def all_services(suite):
    def complete():
        services = {dict(labels).get("service") for _, labels in suite.metrics()}
        assert {"router", "frontend", "pooler", "replicator"} <= services
    eventually(complete)


@needs_promtool
def test_names_keep_the_rules_of_prometheus(busy):
    all_services(busy)
    text = own_series(page(busy)[1])
    assert text.count("# TYPE") > 40
    status, said = promtool("check", "metrics", text=text)
    assert status == 0 and not said.strip(), said


@pytest.mark.smoke
def test_independent_parsers_read_it(busy):
    all_services(busy)
    kind, text = page(busy)
    assert kind.startswith("text/plain; version=0.0.4")
    plain = {one.name: one for one in read_text(text)}
    kind, text = page(busy, openmetrics=True)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    strict = {one.name: one for one in read_openmetrics(text)}
    assert declared("gauge") | declared("histogram") <= set(strict)
    assert {re.sub("_total$", "", name) for name in declared("counter")} <= set(strict)
    for families in (plain, strict):
        answers = families["pgsled_answer_seconds"]
        assert answers.type == "histogram"
        counts = [one.value for one in answers.samples if one.name.endswith("_count")]
        assert sum(counts) == 25
    assert len(plain) == len(strict)


def test_errors_by_sqlstate(busy):
    def counted():
        assert busy.metric("pgsled_errors_total", sqlstate="22012") == 3
        assert busy.metric("pgsled_errors_total", sqlstate="28P01") == 1
        assert busy.metric("pgsled_errors_total", sqlstate="other") == 0
    eventually(counted)


def test_latency_of_answers(busy):
    def slow():
        everything = busy.metric("pgsled_answer_seconds_bucket", le="+Inf")
        assert everything - busy.metric("pgsled_answer_seconds_bucket", le="0.262144") == 1
        assert 0.3 <= busy.metric("pgsled_answer_seconds_sum") < 3
    eventually(slow)


def test_time_a_plan_takes(start, server):
    server.make_database("plan_0")
    server.make_database("plan_1")
    suite = start(databases=[{"name": "plan", "database_name": f"plan_{n}", "shard": n}
                             for n in range(2)],
                  sharded_tables=[{"database": "plan", "name": "t", "column": "id"}])
    client = suite.raw()
    client.query("CREATE TABLE t (id bigint)")
    for key in range(5):
        client.query(f"SELECT * FROM t WHERE id = {key}")
    def asked():
        cold = suite.metric("pgsled_plans_cold_total")
        assert suite.metric("pgsled_plan_seconds_count") == cold >= 2
        assert suite.metric("pgsled_plan_seconds_sum") > 0
    eventually(asked)


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is missing")
@pytest.mark.seconds(60)
def test_a_real_prometheus(busy, tmp_path):
    """Scrapes, keeps our labels, evaluates alerts, and answers every query of the dashboard."""
    text = (HERE / "prometheus.yml").read_text().replace("router:9090",
                                                         f"{HOST}:{busy.metrics_port}")
    (tmp_path / "prometheus.yml").write_text(text.replace(": 10s", ": 1s"))
    shutil.copy(HERE / "alerts.yml", tmp_path)
    address = f"{HOST}:{free_port()}"
    process = subprocess.Popen(
        tied(["prometheus", f"--config.file={tmp_path}/prometheus.yml", "--log.level=warn",
              f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address={address}"]),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def asked(page, **parameters):
        url = f"http://{address}/api/v1/{page}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=5) as got:
            return json.loads(got.read())["data"]

    def scraped():
        try:
            return len(asked("query", query="count_over_time(up[1m]) >= 3")["result"]) == 1
        except OSError:
            return False
    try:
        wait_until(scraped, 20, 0.2, "nothing is scraped")
        labels = {one["metric"]["instance"] for one in
                  asked("query", query="pgsled_build_info")["result"]}
        assert labels == {"router-1", "frontend-1", "pooler-1", "replicator-1"}
        for query in dashboard_queries():
            query = query.replace("$__rate_interval", "1m").replace("$service", ".*")
            rows = asked("query", query=query.replace("$instance", ".*"))["result"]
            assert rows, f"shows nothing: {query}"
        groups = asked("rules")["groups"]
        assert groups and all(one["health"] == "ok" for group in groups for one in group["rules"])
        wrong = [one["labels"]["alertname"] for one in asked("alerts")["alerts"]]
        assert not wrong, wrong
    finally:
        stop_process(process)


# PgDog's names

def documented_for_pgdog():
    text = (ROOT / "docs" / "metrics.md").read_text()
    text = text.split("## Names that PgDog uses")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", text, re.M))


def test_names_of_pgdog_are_those_documented(busy):
    _, text = page(busy)
    kinds = dict(re.findall(r"^# TYPE pgdog_(\w+) (\w+)$", text, re.M))
    helps = dict(re.findall(r"^# HELP pgdog_(\w+) (.*)$", text, re.M))
    assert {(name, kind, helps[name]) for name, kind in kinds.items()} == documented_for_pgdog()


def test_names_of_pgdog_say_what_happened(busy):
    pool = {"user": "postgres", "database": "postgres", "host": HOST, "shard": "0",
            "role": "primary", "port": str(busy.server.port)}
    def agrees():
        assert busy.metric("pgdog_clients") == 1
        assert busy.metric("pgdog_total_query_count", **pool) == 25  # one before it was ready
        assert busy.metric("pgdog_total_server_errors", **pool) == 3
        assert busy.metric("pgdog_max_connections", **pool) == 10
        assert busy.metric("pgdog_cl_waiting", **pool) == 0
        assert 300 <= busy.metric("pgdog_total_query_time", **pool) < 3000
        assert busy.metric("pgdog_total_connect_count", **pool) >= 1
    eventually(agrees)


def test_without_a_namespace_the_names_are_bare(start):
    suite = start()
    def there():
        names = {name for name, _ in suite.metrics()}
        assert {name for name, _, _ in documented_for_pgdog()} <= names
        assert ("clients", frozenset()) in suite.metrics()
    eventually(there)
