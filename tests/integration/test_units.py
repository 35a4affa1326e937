"""systemd units, manual pages and the Helm chart, as far as they can be held to something without
installing them: tests/deploy/package and tests/deploy/helm do more."""

import gzip
import re
import shutil
import subprocess

import pytest

from support.machine import ROOT, binaries

UNITS = ROOT / "deploy" / "systemd"
SERVICES = ["router", "pooler", "replicator", "frontend"]


def unit(service):
    found, = UNITS.glob(f"pgsled-{service}*.service")
    return found


def help_of(program, *words):
    return subprocess.run([str(binaries() / program), *words, "--help"], text=True, check=True,
                          stdout=subprocess.PIPE, timeout=10).stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing")
@pytest.mark.parametrize("service", SERVICES)
def test_exposure_is_small(service):
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager",
                           "--threshold=25", str(unit(service))], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert float(re.search(r"exposure level for .*: ([\d.]+) ", done.stdout)[1]) < 2.5


@pytest.mark.parametrize("service", SERVICES)
def test_units_use_options_that_exist(service):
    text = unit(service).read_text().replace("\\\n", " ")
    line = re.search(rf"^ExecStart=/usr/bin/pgsled-{service} (.*)$", text, re.M)[1]
    options = re.findall(r"(--[\w-]+)", line)
    assert {"--instance", "--router", "--run-dir", "--http"} <= set(options)
    known = re.findall(r"^  (--[\w-]+)", help_of(f"pgsled-{service}"), re.M)
    assert set(options) <= set(known)
    # All hardening is the same, but for what a comment in the unit explains.
    def hardening(of):
        return of.split("# What it may do")[1].split("[Install]")[0]
    assert hardening(text) == hardening(unit("router").read_text())


def test_target_wants_what_is_there():
    wanted = re.findall(r"(pgsled-[\w@]+\.(?:service|target))",
                        (UNITS / "pgsled.target").read_text())
    assert len(wanted) == 5
    for name in wanted:
        assert (UNITS / re.sub(r"@\d+", "@", name)).exists(), name


def test_manual_pages_name_every_option(tmp_path):
    subprocess.run([str(ROOT / "deploy" / "man" / "make_man"), str(binaries()), str(tmp_path)],
                   check=True, timeout=60)
    def page(name):
        return gzip.decompress((tmp_path / name).read_bytes()).decode().replace("\\-", "-")
    for service in SERVICES:
        text = page(f"man8/pgsled-{service}.8.gz")
        for option in re.findall(r"^  (--[\w-]+)", help_of(f"pgsled-{service}"), re.M):
            assert f".B {option}" in text, option
    text = page("man1/pgsled.1.gz")
    commands = re.findall(r"^  ([a-z-]+)  ", help_of("pgsled").split("Subcommands:")[1], re.M)
    assert {"up", "status", "reshard", "import"} <= set(commands)
    for command in commands:
        assert f".SS pgsled {command}" in text, command
        for option in re.findall(r"^  (--[\w-]+)", help_of("pgsled", command), re.M):
            if option != "--help":
                assert f".B {option}" in text, (command, option)


def test_chart_knows_every_key_of_general():
    """Values of the chart in camelCase are the keys of [general]; the rest of it is tested where a
    helm can be had: tests/deploy/helm."""
    listed = (ROOT / "deploy" / "helm" / "pgsled" / "files" / "general-keys").read_text()
    listed = {key for key in listed.split("\n") if key and not key.startswith("#")}
    part = (ROOT / "docs" / "configuration.md").read_text().split("## [general]")[1]
    part = part.split("\n## ")[0]
    wanted = set(re.findall(r"^\| `(\w+)`", part, re.M))
    wanted |= set(re.findall(r"\(also `(\w+)`\)", part))
    assert listed == wanted
