"""The examples for schedulers: what cron and Kubernetes read there, and what comes of it."""

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from cronsim import CronSim

from router.artifact import load_artifact
from tests.test_retrain import TOML
from tests.traffic_makers import call, make_rows, write_log, write_tiers
from training.errors import BadInput, EnvironmentProblem, Refused
from training.learn import heads
from training.retrain.settings import read_settings

EXAMPLES = files("training.retrain") / "examples"
SUNDAY = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MONDAY = datetime(2026, 11, 23, 3, 17, tzinfo=UTC)


def crontab() -> tuple[dict[str, str], str, str]:
    """The example as cron reads it: variables, the schedule of its one line, and the command."""
    variables, jobs = {}, []
    for line in (EXAMPLES / "crontab").read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if found := re.fullmatch(r"\s*([A-Za-z_]+)\s*=\s*(.*?)\s*", line):
            variables[found[1]] = found[2]
        else:
            jobs.append(line.split(None, 5))
    (job,) = jobs
    return variables, " ".join(job[:5]), job[5]


def manifest() -> dict[str, dict]:
    """The documents of the Kubernetes example by kind."""
    text = (EXAMPLES / "cronjob.yaml").read_text(encoding="utf-8")
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


def site(folder: Path, *, gate: str = "") -> Path:
    """A folder with a log, tiers and a job."""
    write_log(folder / "log.parquet", make_rows(1500))
    write_tiers(folder)
    text = TOML.format(challengers=1, quality=0.9, data="", gate=gate, model="suffice")
    (folder / "retrain.toml").write_text(text, encoding="utf-8")
    return folder


def test_cron_reads_one_line_for_mondays() -> None:
    variables, schedule, command = crontab()
    assert next(CronSim(schedule, SUNDAY)) == MONDAY
    assert "%" not in command
    assert set(variables) == {"SHELL", "PATH", "MAILTO", "MLFLOW_TRACKING_URI"}
    assert not any("$" in value for value in variables.values())  # cron expands nothing there
    assert subprocess.run([variables["SHELL"], "-n", "-c", command], check=False).returncode == 0


@pytest.mark.slow
def test_cron_mails_what_went_wrong_and_nothing_else(tmp_path) -> None:
    """The line as cron runs it: by its shell, with its variables alone, from another folder."""
    variables, _, command = crontab()
    site(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    programs = Path(sys.executable).parent
    told = variables | {
        "PATH": variables["PATH"].replace("/srv/suffice/.venv/bin", str(programs)),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "HOME": str(home),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }

    def mailed() -> str:
        line = command.replace("/srv/suffice", str(tmp_path))
        done = subprocess.run(
            [variables["SHELL"], "-c", line], cwd=home, env=told, capture_output=True, text=True
        )
        assert done.returncode == 0, done
        return done.stdout + done.stderr

    assert mailed() == ""
    log = (tmp_path / "retrain.log").read_text()
    assert log.splitlines()[-4] == "promoted", log  # then who, what it is worth, and its run
    champion = load_artifact(tmp_path / "serving" / "current").version
    site(tmp_path, gate="max_ece = 0.0\nece_rows = 1")
    assert mailed() == ""
    assert "refused" in (tmp_path / "retrain.log").read_text()
    (tmp_path / "retrain.toml").write_text("[dta]\n")
    assert "did you mean 'data'" in mailed()
    assert load_artifact(tmp_path / "serving" / "current").version == champion


def test_the_manifest_is_what_kubernetes_takes() -> None:
    found = manifest()
    assert set(found) == {"ConfigMap", "CronJob"}
    newest = kubernetes_validate.latest_version()
    for one in found.values():
        kubernetes_validate.validate(one, newest, strict=True)
    spec = found["CronJob"]["spec"]
    assert next(CronSim(spec["schedule"], SUNDAY)) == MONDAY
    assert spec["concurrencyPolicy"] == "Forbid"
    broken = found["CronJob"] | {"spec": spec | {"concurencyPolicy": "Forbid"}}
    with pytest.raises(kubernetes_validate.ValidationError):  # the schema is one that can refuse
        kubernetes_validate.validate(broken, newest, strict=True)


def test_kubernetes_tries_again_only_what_another_try_may_change() -> None:
    job = manifest()["CronJob"]["spec"]["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    final = next(rule for rule in job["podFailurePolicy"]["rules"] if rule["action"] == "FailJob")
    assert final["onExitCodes"]["containerName"] == container["name"]
    assert final["onExitCodes"]["values"] == [Refused.exit_code, BadInput.exit_code]
    assert EnvironmentProblem.exit_code not in final["onExitCodes"]["values"]
    assert pod["restartPolicy"] == "Never"  # with any other, Kubernetes refuses the policy
    assert job["backoffLimit"] >= 1
    assert {"requests", "limits"} <= set(container["resources"])
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_pod_s_command_runs_on_its_own_configuration(tmp_path, monkeypatch, capsys) -> None:
    found = manifest()
    container = found["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    places = {mount["mountPath"]: tmp_path / mount["name"] for mount in container["volumeMounts"]}

    def here(text: str) -> str:
        """The text with the pod's folders as folders of the test."""
        mounts = "|".join(places)
        return re.sub(rf"({mounts})(?=/)", lambda found: str(places[found[1]]), text)

    for folder in places.values():
        folder.mkdir()
    for name, text in found["ConfigMap"]["data"].items():
        (places["/etc/suffice"] / name).write_text(here(text), encoding="utf-8")
    program, *words = map(here, container["command"])
    assert program == "suffice"
    settings = read_settings(Path(words[words.index("--config") + 1]))
    assert settings.folder.parent == places["/serving"]
    monkeypatch.setattr(heads, "MAX_ROUNDS", 20)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    rows = [row | {"at": yesterday} for row in make_rows(300)]
    settings.traffic.mkdir()
    write_log(settings.traffic / "part.parquet", rows)
    done = call(capsys, *words, "--dry-run")
    assert done.code == 0, done
    assert "300 labelled requests" in done.out
