"""Checkpoints, and tasks in files of their own: nothing here asks a network. Without lm_eval tests are skipped."""

import json
import os
import tempfile

# Before anything imports huggingface_hub and datasets, which read them once.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
_FOLDER = tempfile.TemporaryDirectory(prefix="tad-test-datasets-")
os.environ["HF_DATASETS_CACHE"] = _FOLDER.name

import pytest  # noqa: E402
from tiny_checkpoints import write_llada  # noqa: E402
from word_checkpoints import CHAT_TEMPLATE, write_words_model  # noqa: E402

QUESTIONS = [
    {"question": "one two", "answer": "one"},
    {"question": "three two one one", "answer": "three"},
    {"question": "two", "answer": "three"},
    {"question": "two three", "answer": "two"},
    {"question": "one", "answer": "two"},
]
TASKS = {
    "words": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
generation_kwargs: {until: ["two two"], do_sample: false}
""",
    "choice": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: ["one two", "three"]
doc_to_target: 1
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "perplexity": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
""",
}


@pytest.fixture(scope="session")
def words(tmp_path_factory):
    """A checkpoint whose tokens are words, with a chat template."""
    return write_words_model(tmp_path_factory.mktemp("checkpoints") / "words", chat_template=CHAT_TEMPLATE)


@pytest.fixture(scope="session")
def llada(tmp_path_factory):
    """A LLaDA checkpoint."""
    return write_llada(tmp_path_factory.mktemp("checkpoints") / "llada").folder


@pytest.fixture(scope="session")
def task_folder(tmp_path_factory, write_task):
    """The tasks above over the questions above, as YAML files."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, text in TASKS.items():
        write_task(folder, name, text, QUESTIONS)
    return folder


def _write_task(folder, name, text, records):
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in records))
    source = "dataset_path: json\ndataset_name: null\ntest_split: test\n"
    source += f"dataset_kwargs: {{data_files: {{test: {data}}}}}\n"
    (folder / f"{name}.yaml").write_text(f"{text}\ntask: {name}\n{source}")
    return folder / f"{name}.yaml"


@pytest.fixture(scope="session")
def write_task():
    """write_task(folder, name, text, records): a task's YAML file, and the records that it reads, beside it."""
    return _write_task
