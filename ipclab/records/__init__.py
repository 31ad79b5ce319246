"""What flows upward: frozen records with their units in the field names.

Instruments return them, views draw them, `--json` prints them. They hold no live object: no fd, no process handle.
One file for each instrument; this one has all of their names.
"""

from __future__ import annotations

from ipclab.records.bench import (
    SCHEMA_VERSION,
    Case,
    ComparedRow,
    Comparison,
    DriverName,
    Environment,
    Options,
    Overheads,
    Pattern,
    Placement,
    PlacementName,
    Refusal,
    Row,
    Run,
    Sample,
    SideCost,
    TracedCalls,
)
from ipclab.records.demos import Demo, DemoFamily, DemoList, DemoReport, DemoRun, DemoStatus
from ipclab.records.history import CoursePoint, History, StoredRun
from ipclab.records.machine import DoctorReport, Fact, Instrument, Package
from ipclab.records.mechanisms import Family, Lifetime, Limit, Mechanism, MechanismList, MechanismStatus, Probe
from ipclab.records.processes import CleanReport, Ending, Leftover
from ipclab.records.standing import Standing
from ipclab.records.states import (
    STATES_SCHEMA_VERSION,
    Completeness,
    Glance,
    Interval,
    Recording,
    SourceName,
    SourceStanding,
    SourceStatus,
    StateName,
    Tracked,
    Zoo,
    ZooEntry,
)

__all__ = [
    "SCHEMA_VERSION",
    "STATES_SCHEMA_VERSION",
    "Case",
    "CleanReport",
    "ComparedRow",
    "Comparison",
    "Completeness",
    "CoursePoint",
    "Demo",
    "DemoFamily",
    "DemoList",
    "DemoReport",
    "DemoRun",
    "DemoStatus",
    "DoctorReport",
    "DriverName",
    "Ending",
    "Environment",
    "Fact",
    "Family",
    "Glance",
    "History",
    "Instrument",
    "Interval",
    "Leftover",
    "Lifetime",
    "Limit",
    "Mechanism",
    "MechanismList",
    "MechanismStatus",
    "Options",
    "Overheads",
    "Package",
    "Pattern",
    "Placement",
    "PlacementName",
    "Probe",
    "Recording",
    "Refusal",
    "Row",
    "Run",
    "Sample",
    "SideCost",
    "SourceName",
    "SourceStanding",
    "SourceStatus",
    "Standing",
    "StateName",
    "StoredRun",
    "TracedCalls",
    "Tracked",
    "Zoo",
    "ZooEntry",
]
