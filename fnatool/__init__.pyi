"""The types of what fnatool imports when it is asked for."""

from types import ModuleType

from fnatool.data.options import DataOptions as DataOptions
from fnatool.deploy.deploy import deploy as deploy
from fnatool.deploy.document import Deployed as Deployed
from fnatool.deploy.options import DeployOptions as DeployOptions
from fnatool.deploy.predict import Predictions as Predictions
from fnatool.deploy.predict import PredictOptions as PredictOptions
from fnatool.deploy.predict import predict as predict
from fnatool.export.export import ExportOptions as ExportOptions
from fnatool.export.export import export as export
from fnatool.imitation.evaluate import LikenessOptions as LikenessOptions
from fnatool.imitation.evaluate import LikenessReport as LikenessReport
from fnatool.imitation.evaluate import evaluate_like as evaluate_like
from fnatool.latency.bench import Benchmark as Benchmark
from fnatool.latency.bench import BenchOptions as BenchOptions
from fnatool.latency.bench import bench as bench
from fnatool.latency.measure import LatencyOptions as LatencyOptions
from fnatool.latency.measure import latency_table as latency_table
from fnatool.latency.measure import pack_latency as pack_latency
from fnatool.latency.measure import unpack_latency as unpack_latency
from fnatool.model.check import CheckOptions as CheckOptions
from fnatool.model.check import Report as Report
from fnatool.model.check import check as check
from fnatool.model.cut import CutModel as CutModel
from fnatool.model.cut import CutOptions as CutOptions
from fnatool.model.cut import cut as cut
from fnatool.model.diff import Comparison as Comparison
from fnatool.model.diff import DiffOptions as DiffOptions
from fnatool.model.diff import diff as diff
from fnatool.model.fold import BatchNormResult as BatchNormResult
from fnatool.model.fold import FoldOptions as FoldOptions
from fnatool.model.fold import UnfoldOptions as UnfoldOptions
from fnatool.model.fold import fold as fold
from fnatool.model.fold import unfold as unfold
from fnatool.model.head import head as head
from fnatool.model.headed import Headed as Headed
from fnatool.model.headed import HeadOptions as HeadOptions
from fnatool.model.inspect import Inspection as Inspection
from fnatool.model.inspect import InspectOptions as InspectOptions
from fnatool.model.inspect import inspect as inspect
from fnatool.model.profile import ModelProfile as ModelProfile
from fnatool.model.profile import ProfileOptions as ProfileOptions
from fnatool.model.profile import profile as profile
from fnatool.model.remap import remap as remap
from fnatool.model.remapped import RemapOptions as RemapOptions
from fnatool.model.remapped import Remapped as Remapped
from fnatool.model.source import read as read
from fnatool.model.task import DescribedModel as DescribedModel
from fnatool.model.task import TaskOptions as TaskOptions
from fnatool.model.task import task as task
from fnatool.model.unlabelled import UnlabelledOptions as UnlabelledOptions
from fnatool.report.report import ReportOptions as ReportOptions
from fnatool.report.report import report as report
from fnatool.report.report import report_pair as report_pair
from fnatool.search.derive import DeriveOptions as DeriveOptions
from fnatool.search.derive import derive as derive
from fnatool.search.results import DerivedModel as DerivedModel
from fnatool.search.results import Found as Found
from fnatool.search.run import SearchOptions as SearchOptions
from fnatool.search.run import search as search
from fnatool.tasks.check_data import CheckDataOptions as CheckDataOptions
from fnatool.tasks.check_data import DataReport as DataReport
from fnatool.tasks.check_data import check_data as check_data
from fnatool.training.evaluate import Evaluated as Evaluated
from fnatool.training.evaluate import EvaluateOptions as EvaluateOptions
from fnatool.training.evaluate import evaluate as evaluate
from fnatool.training.run import FinetuneOptions as FinetuneOptions
from fnatool.training.run import finetune as finetune
from fnatool.training.run_alike import LikeOptions as LikeOptions
from fnatool.training.run_alike import finetune_like as finetune_like
from fnatool.training.said import Tuned as Tuned

__version__: str
PUBLIC: dict[str, tuple[str, ...]]
HOMES: dict[str, str]
__all__: list[str]

class CalledFolder(ModuleType):
    def __call__(self, *arguments: object, **named: object) -> object: ...
