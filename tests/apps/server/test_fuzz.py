"""Requests made up from the server's own OpenAPI document, right ones and wrong ones: none is answered by a 5xx."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

QUICK = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[*HealthCheck],  # pyright: ignore[reportArgumentType]
)


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # schemathesis' own
def test_schemathesis_finds_no_5xx(serving):
    served = serving(max_steps=1, max_queue=1)
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json", wait_for_schema=5)
    statuses = set()
    for found in schema.get_all_operations():
        operation = found.ok()  # pyright: ignore[reportAttributeAccessIssue]
        cases = [operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode]

        @QUICK
        @given(st.one_of(cases))
        def asked(case):
            response = case.call(base_url=served.url)
            statuses.add(response.status_code)
            assert response.status_code < 500, (case.method, case.path, case.body)

        asked()
    assert {200, 400, 404} <= statuses
