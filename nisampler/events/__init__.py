"""Event records: columns, rules, LHE and HDF5 files, shards, observables."""

from nisampler.events.batch import EventBatch as EventBatch
from nisampler.events.batch import PointBatch as PointBatch
from nisampler.events.check import CheckReport as CheckReport
from nisampler.events.check import check_file as check_file
from nisampler.events.files import EventFile as EventFile
from nisampler.events.files import read_events as read_events
from nisampler.events.files import write_events as write_events
from nisampler.events.hdf5 import iterate_points as iterate_points
from nisampler.events.hdf5 import write_points as write_points
from nisampler.events.info import InitInfo as InitInfo
from nisampler.events.info import ProcessInfo as ProcessInfo
from nisampler.events.observables import Observable as Observable
from nisampler.events.shards import ShardSet as ShardSet
from nisampler.events.shards import find_shards as find_shards
from nisampler.events.shards import merge_shards as merge_shards
from nisampler.events.shards import shard_path as shard_path
