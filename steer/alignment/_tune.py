"""Preference-tuning with TRL, for the aligned model of an alignment vector."""

import copy
import sys
import warnings
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from steer._check import as_seed, need
from steer.engine import unsteered
from steer.engine._base import in_place
from steer.errors import ArgumentError, FileError, PairsError
from steer.model import Model, check_model
from steer.model._random_state import random_state_put_back
from steer.network import render
from steer.network._thinking import before_and_answer
from steer.pairs import Pair, Pairs, as_pairs
from steer.pairs._pair import messages_of
from steer.store import PathLike, accessing, folder_of, write_bytes

Loss = Literal["ipo", "sigmoid", "hinge"]
_PARTS = ("blocks", "final_norm", "unembedding", "embedding")  # that a user may have named


def preference_tune(
    model: Model,
    pairs: Pairs,
    *,
    loss: Loss = "ipo",
    beta: float = 0.3,
    learning_rate: float = 2e-4,
    steps: int = 80,
    batch_size: int = 16,
    lora_rank: int | None = None,
    adapter: PathLike | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Model:
    """Return a copy of a model tuned to prefer the chosen answers; the model is not changed.

    With `ipo` the loss is (h − 1 / (2 β))², where h is the log-ratio of the probabilities of chosen
    and rejected answer, tuned model over base model, each per token.

    Args:
        model: The unaligned model; it must not be steered.
        pairs: The preference pairs.
        loss: TRL's name of the loss. The alignment-vector paper names `ipo`, but not β, the
            learning rate or the number of steps, which are arguments here.
        beta: Regularisation towards the base: a smaller β moves further.
        learning_rate: Peak learning rate of AdamW, decaying linearly to zero.
        steps: Optimizer steps.
        batch_size: Pairs per step.
        lora_rank: Rank of a LoRA on every linear layer of the blocks; None tunes all weights.
        adapter: Folder for the LoRA adapter, each of whose files is written atomically; needs
            `lora_rank`.
        seed: Seed of the order of the pairs and of the adapter; global random state is restored.
        progress: Whether to show a progress bar, if the output is a terminal.

    Returns:
        The aligned model with the same tokenizer, named after the base and the tuning; an adapter
        is merged into its weights.

    Raises:
        MissingExtraError: TRL (or, for an adapter, PEFT) is not installed.
        PairsError: There are no pairs, or a prompt ends with an assistant message or has fields
            besides role and content.
        ArgumentError: A folder for an adapter is given without a rank, or the seed is no integer
            of 64 bits.
        FileError: The adapter cannot be written.
        CapabilityError: The model's engine does not work on its modules.
        SteeringError: The model is being steered.

    Reference:
        arXiv 2310.12036 (the loss), 2410.19206 (its use for alignment vectors).
    """
    check_model(model)
    in_place(model.engine, "tuning")
    unsteered(model.engine, "preference_tune")
    pairs, seed = as_pairs(pairs), as_seed(seed)
    if adapter is not None and lora_rank is None:
        raise ArgumentError(
            "there is no adapter to save",
            found=f"adapter={adapter!r} and lora_rank=None, which tunes all weights",
            expected="lora_rank, the rank of the adapter",
            do="pass for instance lora_rank=16, or omit adapter",
        )
    if adapter is not None:
        folder_of(adapter, FileError)
    if not len(pairs):
        raise PairsError(
            "there is nothing to prefer",
            found="no pairs",
            expected="at least one pair",
            do="load pairs with Pairs.load",
        )
    with random_state_put_back(), TemporaryDirectory() as folder, warnings.catch_warnings():
        torch.manual_seed(seed)
        warnings.simplefilter("ignore", FutureWarning)  # of TRL's own use of transformers
        trainer = _trainer(
            model,
            pairs,
            folder,
            _lora(lora_rank),
            loss_type=[loss],
            beta=beta,
            learning_rate=learning_rate,
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            seed=seed,
            disable_tqdm=not (progress and sys.stderr.isatty()),
        )
        trainer.train()
    tuned = trainer.model
    if lora_rank is not None:
        if adapter is not None:
            _save(tuned, adapter)
        tuned = tuned.merge_and_unload()
    tuned.config.use_cache = model.hf_model.config.use_cache
    tuned.config._name_or_path = f"{model.info.model_id} tuned with {loss} on {len(pairs)} pairs"
    tuned.config._commit_hash = None  # it is the base's
    named: dict[str, Any] = {part: model.architecture.names[part] or None for part in _PARTS}
    named["chat_template_kwargs"] = model.chat_template_kwargs
    return Model(tuned.eval().requires_grad_(True), model.tokenizer, **named)


def _save(tuned: Any, folder: PathLike) -> None:
    """Write each of an adapter's files atomically."""
    with accessing(folder, FileError), TemporaryDirectory() as place:
        try:
            tuned.save_pretrained(place)
        except SafetensorError as error:
            raise FileError(
                "the adapter cannot be written to a temporary folder",
                found=str(error),
                expected="enough free space",
                do="free some space, or set TMPDIR to a folder on a larger disk",
            ) from error
        for path in sorted(Path(place).iterdir()):
            write_bytes(Path(folder) / path.name, path.read_bytes(), FileError, parents=True)


def _trainer(model: Model, pairs: Pairs, folder: str, lora: Any, **options: Any) -> Any:
    """Return TRL's trainer on copies of the model and its tokenizer."""
    need("preference-tuning", "trl", extra="tune")
    from datasets import Dataset
    from transformers import PrinterCallback

    trl: Any = import_module("trl")  # untyped
    half = next(model.hf_model.parameters()).dtype
    options |= {
        "output_dir": folder,
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "gradient_checkpointing": False,
        "use_cpu": model.hf_model.device.type == "cpu",
        "dataloader_pin_memory": False,
        "bf16": half == torch.bfloat16,
        "fp16": False,
        "max_length": None,
    }
    trainer = trl.DPOTrainer(
        model=copy.deepcopy(model.hf_model).train(),
        ref_model=None if lora is not None else copy.deepcopy(model.hf_model),
        args=trl.DPOConfig(**options),
        train_dataset=Dataset.from_list([_row(model, pair) for pair in pairs]),
        processing_class=_with_arguments(model),
        peft_config=lora,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _row(model: Model, pair: Pair) -> dict[str, Any]:
    """Return a pair in TRL's format: messages, or plain text without a chat template."""
    if not model.chat.has_template:
        prompt = render(model.chat, pair.prompt)
        texts = {"chosen": pair.chosen, "rejected": pair.rejected}
        return {"prompt": prompt} | {
            name: before_and_answer(model.chat, pair.prompt, prompt, text)[1]
            for name, text in texts.items()
        }
    messages = messages_of(pair.prompt)
    if messages[-1].role != "user" or any(message.fields for message in messages):
        raise PairsError(
            "preference_tune cannot tune on this prompt",
            found=f"roles {[m.role for m in messages]}, fields "
            f"{sorted({name for m in messages for name in m.fields})}",
            expected="messages of role and content, the last of them the user's",
            do="omit these pairs",
        )
    turns = [message.as_dict() for message in messages]
    answers = {"chosen": pair.chosen, "rejected": pair.rejected}
    return {"prompt": turns} | {
        name: [{"role": "assistant", "content": text}] for name, text in answers.items()
    }


def _with_arguments(model: Model) -> Any:
    """Return a copy of the tokenizer that passes the model's arguments to its chat template."""
    tokenizer, arguments = copy.deepcopy(model.tokenizer), model.chat_template_kwargs
    if arguments:
        apply = tokenizer.apply_chat_template
        tokenizer.apply_chat_template = lambda *a, **named: apply(*a, **named | arguments)
    return tokenizer


def _lora(rank: int | None) -> Any:
    if rank is None:
        return None
    need("tuning a LoRA adapter", "peft", extra="tune")
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear", task_type="CAUSAL_LM")
