"""The machine as it was while it was measured: what explains a figure, or forbids to compare it with another.

Every look-up stands alone and gives None where this machine does not tell.
"""

from __future__ import annotations

import os
import platform
import re
import resource
from pathlib import Path

from ipclab.machine import cgroups, facts
from ipclab.records import Environment

ROOT = Path("/")

#: Who makes virtual machines, as the firmware names itself.
_VENDORS = ("QEMU", "KVM", "VMware", "VirtualBox", "innotek", "Xen", "Microsoft", "Amazon EC2", "Google", "Parallels")


def gather(root: Path = ROOT) -> Environment:
    """Everything that is known before the first sample; takes a few ms. `throttled_ns` is still 0, or None."""
    name, latency_us = _deepest_idle(root)
    status = _status(root)
    return Environment(
        kernel=os.uname().release,
        architecture=os.uname().machine,
        cpu_model=cpu_model(root),
        cpus_online=os.cpu_count() or 1,
        cpus_allowed=tuple(sorted(os.sched_getaffinity(0))),
        virtual=virtual(root),
        governor=_governors(root),
        deepest_idle_state=name,
        deepest_idle_latency_us=latency_us,
        smt_active=_flag(root / "sys/devices/system/cpu/smt/active"),
        mitigations=mitigations(root),
        numa_nodes=max(1, len(list((root / "sys/devices/system/node").glob("node[0-9]*")))),
        numa_balancing=_flag(root / "proc/sys/kernel/numa_balancing"),
        cpu_quota=cgroups.cpu_quota(root / "proc").value,
        cpuset=status.get("Cpus_allowed_list"),
        throttled_ns=None if cgroups.throttled_ns(root / "proc") is None else 0,
        load_1min=_load(root),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        c_library=" ".join(platform.libc_ver()).strip() or "not glibc",
        dev_shm_free_bytes=dev_shm_free(root),
        page_bytes=resource.getpagesize(),
        limits=facts.limits(),
        facts=facts.gather(),
    )


def throttled() -> int | None:
    """The group's throttled time so far in ns; None where nothing tells."""
    return cgroups.throttled_ns()


def dev_shm_free(root: Path = ROOT) -> int | None:
    """Bytes that /dev/shm still takes."""
    try:
        shm = os.statvfs(root / "dev/shm")
    except OSError:
        return None
    return shm.f_bavail * shm.f_frsize


def cpu_count(environment: Environment) -> float:
    """How many CPUs' worth of time this process may use."""
    allowed = float(len(environment.cpus_allowed))
    return allowed if environment.cpu_quota is None else min(allowed, environment.cpu_quota)


def cpu_model(root: Path = ROOT) -> str:
    """As /proc/cpuinfo names it; arm64 has but numbers there."""
    text = _text(root / "proc/cpuinfo") or ""
    for key in ("model name", "Model", "Hardware", "cpu model"):
        if found := re.search(rf"^{key}\s*:\s*(.+)$", text, flags=re.MULTILINE):
            return found[1].strip()
    parts = re.findall(r"^CPU (?:implementer|part)\s*:\s*(\S+)$", text, flags=re.MULTILINE)
    return " ".join(("ARM", *parts[:2])) if parts else os.uname().machine


def virtual(root: Path = ROOT) -> str | None:
    """Who stands between us and the machine: "" nobody."""
    found = []
    release = os.uname().release.lower()
    vendor = " ".join(_text(root / f"sys/class/dmi/id/{name}") or "" for name in ("sys_vendor", "product_name"))
    hypervisor = _text(root / "sys/hypervisor/type")
    if "microsoft" in release:
        found.append("WSL")
    elif hypervisor:
        found.append(hypervisor)
    elif name := next((name for name in _VENDORS if name.lower() in vendor.lower()), None):
        found.append(name)
    elif re.search(r"^flags\s*:.*\bhypervisor\b", _text(root / "proc/cpuinfo") or "", flags=re.MULTILINE):
        found.append("a hypervisor")
    if (root / ".dockerenv").exists() or (root / "run/.containerenv").exists():
        found.append("a container")
    if not found and not vendor.strip() and not (root / "proc/cpuinfo").exists():
        return None
    return ", ".join(found)


def mitigations(root: Path = ROOT) -> dict[str, str]:
    """What the kernel does about each weakness this CPU has: some make every system call dearer."""
    folder = root / "sys/devices/system/cpu/vulnerabilities"
    found = {path.name: _text(path) or "" for path in sorted(folder.glob("*"))}
    return {name: text for name, text in found.items() if text and text != "Not affected"}


def _deepest_idle(root: Path) -> tuple[str | None, int | None]:
    """The idle state that takes longest to leave, of those that are not disabled; of the first CPU we may use."""
    first = min(os.sched_getaffinity(0))
    states = []
    for path in (root / f"sys/devices/system/cpu/cpu{first}/cpuidle").glob("state[0-9]*"):
        latency, name = _text(path / "latency"), _text(path / "name")
        if latency is not None and latency.isdigit() and name and _text(path / "disable") != "1":
            states.append((int(latency), name))
    if states:
        latency_us, name = max(states)
        return name, latency_us
    driver = _text(root / "sys/devices/system/cpu/cpuidle/current_driver")
    return (None if driver is None else f"driver {driver}"), None


def _governors(root: Path) -> str | None:
    """Of the CPUs we may use; several are listed."""
    cpus = root / "sys/devices/system/cpu"
    found = {_text(cpus / f"cpu{number}/cpufreq/scaling_governor") for number in os.sched_getaffinity(0)} - {None}
    return ", ".join(sorted(str(name) for name in found)) or None


def _load(root: Path) -> float | None:
    words = (_text(root / "proc/loadavg") or "").split()
    return float(words[0]) if words else None


def _status(root: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in (_text(root / "proc/self/status") or "").splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _flag(path: Path) -> bool | None:
    text = _text(path)
    return None if text is None else text != "0"


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
