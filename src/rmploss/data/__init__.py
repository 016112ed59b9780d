"""Data sets: one file each, and one line each in the registry `DATASETS`.

A data set is a frozen dataclass whose fields are its options (see `_base.DataSet`). This folder
imports no neurons and no networks.
"""

from rmploss.data._base import (
    DataSet,
    Key,
    OwnFiles,
    ProgressCallback,
    ReadsFiles,
    ReadsWindows,
    Samples,
    Splits,
    data_root,
)
from rmploss.data._fingerprint import fingerprint
from rmploss.data._in_memory import InMemory, Prepare, Standardize, prepared
from rmploss.data._loading import batch_indices, batches, hold_out, n_batches, take
from rmploss.registry import Registry

DATASETS: Registry[type[DataSet]] = Registry(
    "data set",
    {
        "digits": "rmploss.data.digits:Digits",
        "digits-events": "rmploss.data.digits_events:DigitsEvents",
        "cifar10": "rmploss.data.cifar:CIFAR10",
        "cifar100": "rmploss.data.cifar:CIFAR100",
        "imagenet": "rmploss.data.imagenet:ImageNet",
        "folder": "rmploss.data.folder:Folder",
        "cifar10-dvs": "rmploss.data.cifar10_dvs:CIFAR10DVS",
        "event-folder": "rmploss.data.event_folder:EventFolder",
        "event-trials": "rmploss.data.event_trials:EventTrials",
        "tonic": "rmploss.data.tonic_set:TonicSet",
        "nmnist": "rmploss.data.nmnist:NMNIST",
        "dvs128-objects": "rmploss.data.dvs128_objects:DVS128Objects",
    },
    family="dataset",
    needs=("name", "temporal", "shape", "missing", "open"),
)

__all__ = [
    "DATASETS",
    "DataSet",
    "InMemory",
    "Key",
    "OwnFiles",
    "Prepare",
    "ProgressCallback",
    "ReadsFiles",
    "ReadsWindows",
    "Samples",
    "Splits",
    "Standardize",
    "batch_indices",
    "batches",
    "data_root",
    "fingerprint",
    "hold_out",
    "n_batches",
    "prepared",
    "take",
]
