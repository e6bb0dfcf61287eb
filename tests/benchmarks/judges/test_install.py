"""Making the judges' environments: what is up to date, and what is said when one cannot be had."""

import re

import pytest

from benchmarks.judges import arm, commands, environments, install


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    monkeypatch.delenv("JUDGES_ABSENT", raising=False)
    return tmp_path


@pytest.fixture
def only_arm_fails(folder, monkeypatch):
    """Stands in for what takes minutes; returns the environments that were asked for."""
    asked = []

    def make(environment):
        asked.append(environment)
        if environment == "arm":
            raise commands.CannotBeMadeError("no such packages")
        (folder / environment).mkdir(exist_ok=True)
        environments.stamp(environment).write_text(environments.fingerprint(environment))

    monkeypatch.setattr(install, "make", make)
    return asked


def test_every_package_is_pinned():
    for environment in environments.ENVIRONMENTS:
        lines = environments.requirements(environment).read_text().splitlines()
        packages = [line for line in lines if not line.startswith("#")]
        assert packages and all(re.fullmatch(r"[\w.-]+==[\w.]+", package) for package in packages)


def test_one_that_cannot_be_had_is_said_and_the_others_are_made(only_arm_fails, capsys):
    assert install.main() == 1
    assert only_arm_fails == list(environments.ENVIRONMENTS)
    printed = capsys.readouterr()
    assert printed.out.count("ready, made in") == len(environments.ENVIRONMENTS) - 1
    assert "arm: CANNOT BE HAD. no such packages" in printed.err
    assert "To do without: make judges JUDGES_ABSENT=arm" in printed.err


def test_one_that_may_be_absent_is_said_and_no_failure(only_arm_fails, capsys, monkeypatch):
    monkeypatch.setenv("JUDGES_ABSENT", "tosa,arm")
    assert install.main() == 0
    assert "arm: CANNOT BE HAD" in capsys.readouterr().err


def test_only_what_is_not_up_to_date_is_made_again(only_arm_fails):
    install.main()
    only_arm_fails.clear()
    environments.stamp("tosa").write_text("other packages")
    install.main()
    assert only_arm_fails == ["tosa", "arm"]


def test_absent_names_are_environments(monkeypatch):
    monkeypatch.setenv("JUDGES_ABSENT", "arm,qemu")
    with pytest.raises(ValueError, match="JUDGES_ABSENT names some of tflite_runtime, .*, arm, .*. Received: qemu"):
        environments.may_be_absent()


def test_a_package_that_pip_does_not_find_is_said(folder, monkeypatch):
    wanted = folder / "wanted.txt"
    wanted.write_text(f"tflite-micro @ file://{folder}/none.whl\n")
    monkeypatch.setattr(environments, "requirements", lambda environment: wanted)
    with pytest.raises(commands.CannotBeMadeError, match="pip .* failed:\n(.|\n)*none.whl"):
        install.make("tflm")
    assert not environments.is_made("tflm")


def test_without_debians_tools_the_arm_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(commands.CannotBeMadeError, match="`apt-get` and `dpkg` are required. Received: no `apt-get`"):
        arm.install(tmp_path, environments.requirements("arm"))


def test_without_debians_mirror_the_arm_says_how_to_name_one(tmp_path, monkeypatch):
    monkeypatch.delenv("DEBIAN_MIRROR", raising=False)
    for program in ("apt-get", "dpkg"):
        (tmp_path / program).write_text("#!/bin/sh\necho other://mirror/ubuntu/\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(commands.CannotBeMadeError, match="other://mirror/ubuntu/.* make judges DEBIAN_MIRROR=URL"):
        arm.install(tmp_path / "arm", environments.requirements("arm"))


def test_a_program_that_does_not_start_is_said(tmp_path):
    with pytest.raises(commands.CannotBeMadeError, match="none` cannot be started: No such file"):
        commands.call([tmp_path / "none"])
