"""What other languages read is what the models say."""

import json

from schemas.generate import MODELS, STREAMS, TARGET, documents


def test_every_generated_document_in_the_tree_equals_the_models() -> None:
    present = {path.name: path.read_text() for path in TARGET.glob("*.json")}
    assert present == documents()


def test_the_asyncapi_document_names_every_stream_and_only_messages_that_exist() -> None:
    document = json.loads(documents()["asyncapi.json"])
    assert {channel["address"] for channel in document["channels"].values()} == {f"{{rail}}:{s}" for s in STREAMS}
    for message in document["components"]["messages"].values():
        assert message["payload"]["$ref"].removeprefix("./").removesuffix(".json") in MODELS
