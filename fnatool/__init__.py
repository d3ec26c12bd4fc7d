"""fnatool: adapt a pretrained CNN, ONNX in and ONNX out, to another task, shape and budget.

Each command is a function of the same name, with its options in a class of their own. The functions print nothing;
within `fnatool.terminal.heard()` long work shows how it goes, as on the command line.
"""

from __future__ import annotations

from types import ModuleType

__version__ = "0.1.0"

PUBLIC = {
    "model.source": ("read",),
    "model.inspect": ("inspect", "InspectOptions", "Inspection"),
    "model.profile": ("profile", "ProfileOptions", "ModelProfile"),
    "model.diff": ("diff", "DiffOptions", "Comparison"),
    "model.check": ("check", "CheckOptions", "Report"),
    "model.remap": ("remap",),
    "model.remapped": ("RemapOptions", "Remapped"),
    "model.head": ("head",),
    "model.headed": ("HeadOptions", "Headed"),
    "model.task": ("task", "TaskOptions", "DescribedModel"),
    "model.cut": ("cut", "CutOptions", "CutModel"),
    "model.fold": ("fold", "FoldOptions", "BatchNormResult", "unfold", "UnfoldOptions"),
    "model.unlabelled": ("UnlabelledOptions",),
    "imitation.evaluate": ("evaluate_like", "LikenessOptions", "LikenessReport"),
    "export.export": ("export", "ExportOptions"),
    "data.options": ("DataOptions",),
    "tasks.check_data": ("check_data", "CheckDataOptions", "DataReport"),
    "training.run": ("finetune", "FinetuneOptions"),
    "training.said": ("Tuned",),
    "training.run_alike": ("finetune_like", "LikeOptions"),
    "training.evaluate": ("evaluate", "EvaluateOptions", "Evaluated"),
    "deploy.deploy": ("deploy",),
    "deploy.document": ("Deployed",),
    "deploy.options": ("DeployOptions",),
    "deploy.predict": ("predict", "PredictOptions", "Predictions"),
    "search.run": ("search", "SearchOptions"),
    "search.derive": ("derive", "DeriveOptions"),
    "search.results": ("DerivedModel", "Found"),
    "latency.bench": ("bench", "BenchOptions", "Benchmark"),
    "latency.measure": ("latency_table", "pack_latency", "unpack_latency", "LatencyOptions"),
    "report.report": ("report", "report_pair", "ReportOptions"),
}
"""Module → what it gives to this one: a function that is a command, its options, its result."""

HOMES = {name: module for module, names in PUBLIC.items() for name in names}

__all__ = [*HOMES]


def __getattr__(name: str) -> object:
    """What is in __all__, imported when asked for: the command line's --help needs none of it, and only some of it
    needs torch.
    """
    if name in HOMES:
        from importlib import import_module

        return getattr(import_module(f"fnatool.{HOMES[name]}"), name)
    raise AttributeError(f"module 'fnatool' has no attribute '{name}'")


class CalledFolder(ModuleType):
    """A folder of modules that has the name of a function here: calling it calls the function, whatever was imported
    before.
    """

    def __call__(self, *arguments: object, **named: object) -> object:
        """What the function of this name returns."""
        found = __getattr__(self.__name__.removeprefix("fnatool."))
        assert callable(found)
        return found(*arguments, **named)
