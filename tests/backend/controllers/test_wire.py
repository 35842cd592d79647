"""Reading a request costs little, however wrong it is."""

import pytest
from pydantic import ValidationError

from functions.backend.controllers.wire import GenerationRequest


@pytest.mark.parametrize("field", ["prompt", "stop", "stop_token_ids"])
def test_one_wrong_element_is_enough(field):
    """A list of half a million wrong elements is refused at the first, not reported half a million times."""
    with pytest.raises(ValidationError) as refusal:
        GenerationRequest.model_validate({"prompt": "a", field: [None] * 1000})
    assert refusal.value.error_count() <= 2
