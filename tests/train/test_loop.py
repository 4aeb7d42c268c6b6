"""The loop: schedules, early stop, checkpoints, a kill at any moment, several processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from vitrail.data.log import Log
from vitrail.errors import ArtifactError, SettingError, VitrailError
from vitrail.systems.base import Given, Sizes, TrainSettings
from vitrail.systems.collaborative.bpr_mf import BPRMF
from vitrail.testing import checkerboard
from vitrail.train import checkpoint
from vitrail.train.checkpoint import BEST, Best, Checkpoints, load_tensors, save_tensors
from vitrail.train.fit import fit
from vitrail.train.loop import rate, train

LOG = Log(np.array([0, 3, 6]), np.array([0, 1, 2, 2, 3, 4], dtype=np.int32), 6)


def model(**settings):
    torch.manual_seed(0)
    return BPRMF(BPRMF.Config(**({"dim": 4, "batch": 4, "epochs": 5} | settings)), Sizes(2, 6), Given.of(LOG, BPRMF.needs))


@pytest.mark.parametrize(("schedule", "middle", "end"), [("constant", 1.0, 1.0), ("linear", 0.5, 0.01), ("cosine", 0.5, 0.00025)])
def test_schedules(schedule, middle, end):
    settings = TrainSettings(lr=1.0, schedule=schedule)
    assert rate(settings, 50, 100) == pytest.approx(middle)
    assert rate(settings, 99, 100) == pytest.approx(end, abs=1e-3)
    warm = TrainSettings(lr=1.0, schedule=schedule, warmup=10)
    assert rate(warm, 0, 100) == pytest.approx(0.1) and rate(warm, 9, 100) == pytest.approx(1.0)


def test_early_stop_keeps_the_best_weights():
    values = iter([0.1, 0.5, 0.4, 0.3, 0.9])
    seen = []

    def validate(m):
        seen.append(m.items.detach().clone())
        return next(values)

    m = model(patience=2)
    done = train(m, LOG, m.config, seed=0, validate=validate).progress
    assert (done.best_epoch, done.epoch) == (2, 4)
    assert torch.equal(m.items, seen[1])


def test_a_deadline_stops_in_the_middle_of_an_epoch_and_the_run_goes_on_from_there(tmp_path):
    def validate(m):
        return float(m.items.detach().sum())

    whole = model(patience=0, batch=2)
    done = train(whole, LOG, whole.config, seed=0, validate=validate).progress
    calls, value = iter(range(100)), []
    m, steps = model(patience=0, batch=2), model(batch=2).batcher(LOG, 0, 0, 1).steps()
    cut = train(m, LOG, m.config, seed=0, validate=validate, checkpoints=Checkpoints(tmp_path), left=lambda: steps - next(calls)).progress
    assert cut.cut and not cut.finished and 0 < cut.step < steps and cut.epoch == 1 and cut.best_epoch == 1
    assert validate(m) == pytest.approx(cut.best_value)
    again = model(patience=0, batch=2)
    more = train(again, LOG, again.config, seed=0, validate=validate, checkpoints=Checkpoints(tmp_path), resume=True).progress
    assert more.finished and not more.cut and [r["epoch"] for r in more.curve] == [1, 2, 3, 4, 5] and more.best_value == done.best_value
    assert torch.equal(again.items, whole.items)

    early = model(patience=0, batch=2)
    first = train(early, LOG, early.config, seed=0, validate=lambda m: value.append(1) or 0.5, left=lambda: -1.0).progress
    assert (first.cut, first.step, first.best_value, first.best_epoch, len(value)) == (True, 1, 0.5, 1, 1)


def test_a_seed_is_a_run():
    def weights(seed):
        m = model()
        train(m, LOG, m.config, seed=seed, validate=None)
        return m.items.detach()

    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))


def test_clipping_bounds_the_step():
    m = model(clip=1e-9, lr=1e-3, epochs=1)
    before = m.items.detach().clone()
    train(m, LOG, m.config, seed=0, validate=None)
    assert torch.isfinite(m.items).all() and (m.items - before).abs().max() < 1e-2


def test_a_loss_that_is_not_finite_is_a_sentence():
    m = model(lr=1e30)
    with torch.no_grad():
        m.items.fill_(float("nan"))
    with pytest.raises(VitrailError, match="no longer finite"):
        train(m, LOG, m.config, seed=0, validate=None)


def test_checkpoints_replace_one_another_and_damage_is_a_sentence(tmp_path):
    m = model(checkpoint_seconds=0.0)
    train(m, LOG, m.config, seed=0, validate=None, checkpoints=Checkpoints(tmp_path))
    folders = list(tmp_path.glob("checkpoint-*"))
    assert len(folders) == 1
    (folders[0] / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ArtifactError, match="damaged"):
        train(m, LOG, m.config, seed=0, validate=None, checkpoints=Checkpoints(tmp_path), resume=True)


def test_tensors_round_trip(tmp_path):
    shared = torch.arange(6.0)
    save_tensors(tmp_path / "x.safetensors", {"a": shared, "b": shared[2:], "c": torch.tensor(3)})
    back = load_tensors(tmp_path / "x.safetensors")
    assert torch.equal(back["b"], shared[2:]) and back["c"].item() == 3
    with pytest.raises(ArtifactError, match="missing"):
        load_tensors(tmp_path / "y.safetensors")


@pytest.mark.parametrize("few", [0, checkpoint.FEW])
def test_the_best_weights_lie_in_memory_or_in_a_file(few, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FEW", few)
    weights = {"a": torch.arange(3.0)}
    for best in (Best(), Best(tmp_path)):
        assert not best
        best.keep(weights)
        best.write(tmp_path / "copy.safetensors")
        weights["a"] += 1
        assert best and torch.equal(best.tensors()["a"] + 1, weights["a"])
        assert torch.equal(load_tensors(tmp_path / "copy.safetensors")["a"] + 1, weights["a"])
    assert (tmp_path / BEST).exists() == (few == 0)
    best.clear()
    assert not best and not (tmp_path / BEST).exists()


@pytest.mark.parametrize("few", [0, checkpoint.FEW])
def test_a_run_ends_with_its_best_weights_wherever_they_lay(few, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FEW", few)
    values, seen = iter([0.1, 0.5, 0.4]), []

    def validate(m):
        seen.append(m.items.detach().clone())
        return next(values)

    left = iter([1.0, 1.0, 0.0])  # asked once an epoch
    m, again = model(epochs=3, patience=0), model(epochs=3, patience=0)
    cut = train(m, LOG, m.config, seed=0, validate=validate, checkpoints=Checkpoints(tmp_path), left=lambda: next(left)).progress
    assert cut.cut and torch.equal(m.items, seen[1])
    train(again, LOG, again.config, seed=0, validate=validate, checkpoints=Checkpoints(tmp_path), resume=True)
    assert torch.equal(again.items, seen[1]) and not torch.equal(seen[1], seen[2])


@pytest.mark.parametrize("system", ["bpr-mf", "logistic"])
def test_a_fit_refused_for_memory_makes_no_folder_and_overwrites_no_run(system, tmp_path, monkeypatch):
    data, run = checkerboard(tmp_path / "data", side=10), tmp_path / "run"
    split = "pairs" if system == "logistic" else None
    fit("popular", data, split="none", out=run, quiet=True)
    before = {file.relative_to(run): file.read_bytes() for file in run.rglob("*") if file.is_file()}
    monkeypatch.setattr("vitrail.train.fit.free_memory", lambda: 1)
    for place, more in ((run, {"overwrite": True}), (tmp_path / "new", {})):
        with pytest.raises(VitrailError, match="use a batch below"):
            fit(system, data, split=split, out=place, quiet=True, **more)
    assert not (tmp_path / "new").exists()
    assert before == {file.relative_to(run): file.read_bytes() for file in run.rglob("*") if file.is_file()}


def test_resume_refuses_other_settings(tmp_path):
    data = checkerboard(tmp_path / "data")
    fit("bpr-mf", data, split="leave-last-out", out=tmp_path / "run", settings={"epochs": 1}, quiet=True)
    with pytest.raises(SettingError, match="began with epochs=1"):
        fit("bpr-mf", data, split="leave-last-out", out=tmp_path / "run", settings={"epochs": 2}, resume=True, quiet=True)
    with pytest.raises(SettingError, match="another seed"):
        fit("bpr-mf", data, split="leave-last-out", out=tmp_path / "run", settings={"epochs": 1}, seed=1, resume=True, quiet=True)


RUN = """
import sys
from vitrail.train.fit import fit
settings = dict(epochs=25, batch=8, dim=8, checkpoint_seconds=0.0, patience=0, dropout=0.3, length=12)
fit("sasrec", sys.argv[1], split="leave-last-out", out=sys.argv[2], settings=settings, resume=True, quiet=True)
"""


def test_killed_at_any_moment_and_resumed_is_a_run_not_killed(tmp_path):
    """kill -9 three times at arbitrary moments; in the end the weights are equal, bit for bit."""
    data = checkerboard(tmp_path / "data")
    data.log()
    env = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(out: Path) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-W", "ignore", "-c", RUN, str(data.path), str(out)], env=env)

    whole = start(tmp_path / "whole")
    killed = 0
    for wait in (0.15, 0.4, 0.05):
        process = start(tmp_path / "killed")
        deadline = time.monotonic() + 60
        before = (tmp_path / "killed" / "checkpoint.json").read_text() if (tmp_path / "killed" / "checkpoint.json").exists() else ""
        while time.monotonic() < deadline and process.poll() is None:  # until it has got on, then a little further
            pointer = tmp_path / "killed" / "checkpoint.json"
            if pointer.exists() and pointer.read_text() != before:
                break
            time.sleep(0.01)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 1, "the run was too short to be killed"
    assert start(tmp_path / "killed").wait(120) == 0 and whole.wait(120) == 0
    a, b = (load_tensors(tmp_path / name / "artifact" / "model.safetensors") for name in ("whole", "killed"))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)

    def losses(name):
        return [json.loads(line)["loss"] for line in (tmp_path / name / "curves.jsonl").read_text().splitlines()]

    assert losses("whole") == losses("killed")
    assert not list((tmp_path / "killed").glob("checkpoint-*"))


WORKER = """
import sys, torch
from vitrail.data.dataset import Dataset
from vitrail.systems.base import Given, Sizes
from vitrail.systems.collaborative.bpr_mf import BPRMF
from vitrail.train import distributed
from vitrail.train.loop import train
rank, world = distributed.start()
log = Dataset(sys.argv[1]).log()
torch.manual_seed(rank)  # on purpose: the weights of the first process count
model = BPRMF(BPRMF.Config(dim=4, batch=32, epochs=2), Sizes(log.n_users, log.n_items), Given.of(log, BPRMF.needs))
train(model, log, model.config, seed=0, validate=None)
same = model.items.detach().clone()
torch.distributed.broadcast(same, src=0)
assert torch.equal(same, model.items), "processes ended with different weights"
if rank == 0:
    print("world", world, float(model.items.abs().sum()))
"""


def test_two_processes_end_with_the_same_weights(tmp_path):
    data = checkerboard(tmp_path / "data")
    data.log()
    (tmp_path / "worker.py").write_text(WORKER)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "0",
        "--standalone",
        str(tmp_path / "worker.py"),
        str(data.path),
    ]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "world 2" in done.stdout
