"""MLflow: settings, figures, curves and the report of a run, on a tracking server or in a local store."""

from __future__ import annotations

from typing import Any

from edgedafl.errors import EnvironmentMissingError, reason_of
from edgedafl.tracking.figures import RunFigures, progress_values

__all__ = ["log_to_mlflow"]


def log_to_mlflow(figures: RunFigures, *, uri: str | None = None, experiment: str = "edgedafl") -> str:
    """Log a run.

    Args:
        figures: Of the run.
        uri: Of the tracking server or store; MLflow's own setting when None (`MLFLOW_TRACKING_URI`).
        experiment: It is logged under; made where there is none.

    Returns:
        The run's id at MLflow.

    Raises:
        EnvironmentMissingError: If MLflow is not installed, or its store does not answer.

    Examples:
        >>> from edgedafl.runs import RunDirectory
        >>> from edgedafl.tracking import figures_of
        >>> figures = figures_of(RunDirectory("runs/teacher-rpi4"))
        >>> run_id = log_to_mlflow(figures, uri="mlruns")  # doctest: +SKIP
    """
    mlflow = _mlflow()
    try:
        if uri is not None:
            mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(experiment)
        with mlflow.start_run(run_name=figures.name) as active:
            mlflow.log_params(figures.settings)
            mlflow.set_tags({f"{name}_is": kind for name, kind in figures.kinds.items()})
            mlflow.log_metrics(figures.values)
            for progress in figures.progress:
                mlflow.log_metrics(progress_values(progress), step=round(progress.seconds))
            for file in figures.files:
                mlflow.log_artifact(str(file))
            return str(active.info.run_id)
    except mlflow.exceptions.MlflowException as error:
        raise EnvironmentMissingError(
            f"MLflow does not take the run: {reason_of(error)}",
            "Say where with --uri, e.g. http://localhost:5000, or set MLFLOW_TRACKING_URI.",
        ) from error


def _mlflow() -> Any:
    try:
        import mlflow
    except ImportError as error:
        raise EnvironmentMissingError(
            "MLflow is not installed.", "Install it: pip install edgedafl[mlflow]."
        ) from error
    return mlflow
