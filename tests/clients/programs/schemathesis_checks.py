"""A check of schemathesis that knows what no schema can say, such as what one model has, and another one has not."""

import re

import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

# A request that obeys the schema may be refused for these reasons, and for no other.
REASONS = re.compile(
    r"is outside the vocabulary of"
    r"|ids of \S+ are 0 to|; ids are 0 to"
    r"|this model's chat template has no place for them"
    # One field's value sets another's limit; or a number is a field's name.
    r"|best_of must be at least n|makes \d+ texts; a request may have|logit_bias is \d+; it must be between"
    # A list may have so many elements, and be as long as that all together.
    r"|a conversation, with all that belongs to it, may have \d+ characters"
    # 1.0 is an integer to a schema, and none to us.
    r"|input should be a valid integer\.|ids are whole numbers"
)


@schemathesis.check
def what_the_schema_allows_is_accepted(ctx, response, case):
    """A request that obeys the schema is refused for what only the model knows."""
    if response.status_code in {400, 422} and REASONS.search(response.text):
        return None
    return positive_data_acceptance(ctx, response, case)
