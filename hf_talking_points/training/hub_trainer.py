"""What a trainer pushes to the Hub loads for everybody."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import is_peft_model

from ..cards import trained_card
from ..checkpoints import check_base
from ..files import only_writer
from ..models.remote_code import AUTO_MAPS, CUSTOM_PIPELINES, copy_code

if TYPE_CHECKING:
    from transformers import Trainer
    from transformers.trainer_utils import TrainOutput
else:
    Trainer = object  # a mixin: the trainer that it is mixed into brings the methods


class UnsavedToken(str):
    """A token that is None wherever it would be stored: transformers keeps a run's arguments beside its model."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


class HubTrainerMixin(Trainer):
    """Over a `Trainer`: what it pushes loads without this package, under a card with the run's own configuration and
    evaluation."""

    def init_hf_repo(self, *args, **kwargs) -> None:
        """As of `Trainer`; every later save of the run can be pushed.

        Raises ValueError for an adapter whose base model is a folder of this machine."""
        config = self.model.config
        # the adapter of a fresh model, which has no path, may still be merged before it is pushed
        if is_peft_model(self.model) and config._name_or_path:
            check_base(config._name_or_path)
        super().init_hf_repo(*args, **kwargs)
        # set here and not written into the files, because each save of the run may be pushed
        config.auto_map = AUTO_MAPS[config.model_type]
        config.custom_pipelines = CUSTOM_PIPELINES[config.model_type]
        self.processing_class.auto_map = {
            "AutoProcessor": config.auto_map["AutoProcessor"]
        }
        if self.is_world_process_zero():
            output_dir = Path(self.args.output_dir)
            output_dir.mkdir(parents=True, exist_ok=True)
            copy_code(output_dir)

    def train(self, *args, **kwargs) -> TrainOutput:
        """As of `Trainer`. Raises BlockingIOError where another run writes to the output folder."""
        if not self.is_world_process_zero():
            return super().train(*args, **kwargs)
        output_dir = Path(self.args.output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        with only_writer(output_dir):
            return super().train(*args, **kwargs)

    def _save(self, *args, **kwargs) -> None:
        """As of `Trainer`, which stores the arguments along, without the token."""
        token = self.args.hub_token
        self.args.hub_token = None if token is None else UnsavedToken(token)
        super()._save(*args, **kwargs)

    def push_to_hub(self, *args, **kwargs) -> Any:
        """As of `Trainer`. Raises ValueError for an adapter whose base model nobody can pull."""
        if is_peft_model(self.model):
            check_base(self.model.config._name_or_path)
        return super().push_to_hub(*args, **kwargs)

    def create_model_card(
        self,
        model_name: str | None = None,
        dataset_name: str | list[str] | None = None,
        tags: str | list[str] | None = None,
    ) -> None:
        """Writes the run's card, [`trained_card`], as README.md of its output folder."""
        if self.is_world_process_zero():
            card = trained_card(self, model_name, dataset_name, tags)
            card.save(Path(self.args.output_dir) / "README.md")
