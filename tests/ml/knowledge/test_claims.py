"""What checks claim: every check that a job announces says so in words, and no words are left over."""

from neurofm_ml.jobs import JOBS
from neurofm_ml.knowledge.claims import CLAIMS


def test_every_check_says_what_it_claims() -> None:
    announced = {check for name in JOBS for check in JOBS[name].checks}
    assert announced == set(CLAIMS)


def test_claims_are_sentences_of_one_line() -> None:
    for name, words in CLAIMS.items():
        assert words.endswith("."), name
        assert len(words) <= 140, name
