"""Runs in the experiment trackers that teams have already."""

from edgedafl.tracking.dvc import write_dvc_metrics
from edgedafl.tracking.figures import RunFigures, figures_of
from edgedafl.tracking.mlflow import log_to_mlflow
from edgedafl.tracking.tensorboard import write_tensorboard

__all__ = ["RunFigures", "figures_of", "log_to_mlflow", "write_dvc_metrics", "write_tensorboard"]
