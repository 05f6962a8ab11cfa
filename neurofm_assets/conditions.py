"""Conditions: what makes an asset out of date, when it is safe to make it again, and how old it may grow.

Assets that need no GPU carry one of these; those that do start when a person, a schedule or a sensor asks. Which
sensors look at the conditions is in `neurofm_assets.automation`.
Dagster concepts: declarative automation, freshness policies.
"""

from datetime import timedelta
from typing import Any

import dagster as dg

#: Some input was refused by a check that blocks. Said of any input, not of all: most partitions of most inputs are
#: datasets that are not here, which have passed no check and never will.
BLOCKED = dg.AutomationCondition.any_deps_match(
    dg.AutomationCondition.any_checks_match(dg.AutomationCondition.check_failed(), blocking_only=True)
).with_label("an input is blocked")

CHANGED = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed())

#: An input is about to change, so what is made now would be out of date at once. Dagster's `will_be_requested` sees inputs of
#: the same partitions alone; data that follow other data are about to change when these have changed.
UNSETTLED = (
    dg.AutomationCondition.any_deps_in_progress()
    | dg.AutomationCondition.any_deps_match(dg.AutomationCondition.will_be_requested())
    | dg.AutomationCondition.any_deps_match(CHANGED.since_last_handled()).allow(dg.AssetSelection.groups("data"))
    | dg.AutomationCondition.in_progress()
).with_label("an input is being made")


def when_changed(*inputs: str) -> dg.AutomationCondition[Any]:
    """A partition, once the contents of the named inputs have changed and all inputs are whole and at rest.

    The trigger is a changed data version: an input that was made again and came out the same starts nothing. It is kept until
    the partition is requested, or made by other means.
    """
    trigger = CHANGED.allow(dg.AssetSelection.assets(*inputs)).since_last_handled()
    return (trigger & ~UNSETTLED & ~BLOCKED).with_label(f"{' or '.join(inputs)} changed")


def when_complete(*inputs: str) -> dg.AutomationCondition[Any]:
    """As `when_changed`, and every input of the partition is here."""
    whole = when_changed(*inputs) & ~dg.AutomationCondition.any_deps_missing()
    return whole.with_label(f"{' or '.join(inputs)} changed, all inputs here")


#: What a schedule makes again each night, or each week; late is one that was missed twice.
NIGHTLY = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=3), warn_window=timedelta(hours=36))
WEEKLY = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=21), warn_window=timedelta(days=8))
