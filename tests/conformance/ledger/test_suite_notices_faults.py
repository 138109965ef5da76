"""For each promise a deliberately faulty ledger: the promise's test must fail on it."""

from typing import Any

import pytest
from conformance.ledger import faulty
from conformance.ledger.faulty import FaultyHarness, Wrapped
from conformance.ledger.harness import Spec
from conformance.ledger.promises import PROMISES, LedgerPromises

FAULTS: dict[str, Any] = {
    # state
    "own_writes_are_invisible": faulty.own_writes,
    "a_commit_is_visible_to_every_organisation": faulty.OrganisationsApart,
    "a_delete_is_visible": faulty.NoDeletes,
    "read_modify_write_twice_from_one_state_applies_once": faulty.no_versions,
    "a_read_of_an_absent_key_conflicts_with_its_creation": faulty.no_absent_reads,
    "a_read_conflicts_with_a_write_of_the_same_value": faulty.values_as_versions,
    "blind_writes_do_not_conflict": faulty.versions_on_writes,
    "a_conflicted_intent_can_be_prepared_again_and_is_then_used": faulty.no_versions,
    "two_envelopes_of_one_intent_apply_once": faulty.no_absent_reads,
    "inserting_into_a_range_that_was_read_conflicts": faulty.no_ranges,
    "deleting_from_a_range_that_was_read_conflicts": faulty.no_ranges,
    "changing_inside_a_range_that_was_read_conflicts": faulty.no_ranges,
    "the_end_of_a_range_is_not_in_it": faulty.inclusive_ranges,
    "a_range_read_in_part_is_protected_in_that_part": faulty.no_parts_of_ranges,
    "an_empty_range_is_protected": faulty.no_empty_ranges,
    "ranges_are_ordered_by_the_bytes_of_the_keys": faulty.UtfSixteenOrder,
    "pages_cover_a_range_once": faulty.overlapping_pages,
    # submit
    "preparing_orders_nothing": faulty.CommitsAtPrepare,
    "the_result_is_the_functions": faulty.EmptyResults,
    "a_refusal_leaves_nothing_and_names_the_field": faulty.UsesRefusedIntents,
    "a_defect_in_a_contract_is_a_refusal_and_the_ledger_goes_on": faulty.SwallowsDefects,
    "an_empty_value_is_refused": faulty.empty_values,
    "a_write_after_a_paged_query_is_refused": faulty.writes_after_pages,
    "a_passed_deadline_is_refused": faulty.ForgetsDeadlines,
    "a_timestamp_beyond_the_guard_is_refused": faulty.no_time_guard,
    "a_transaction_carries_its_gateways_time_and_identity": faulty.own_clock,
    "too_large_an_envelope_is_refused_and_nothing_is_left": faulty.no_size_limit,
    "an_envelope_submitted_again_applies_once": faulty.everything_twice,
    "the_status_says_where_the_transaction_stands": faulty.GuessesStatus,
    "an_unknown_outcome_is_cleared_by_asking_and_submitting_again": faulty.LosesCancelledSubmissionsForGood,
    "a_changed_envelope_never_becomes_valid": faulty.any_envelope,
    "the_contracts_policy_is_enforced": faulty.no_endorsement_policy,
    "a_keys_policy_is_enforced": faulty.no_key_policies,
    "a_keys_policy_may_leave_a_choice": faulty.no_key_policies,
    # events
    "events_come_with_their_payload_in_order": faulty.SilentEvents,
    "an_invalid_transaction_is_delivered_without_events": faulty.EventsOfInvalid,
    "the_order_is_the_order_of_submission": faulty.SwapsPairs,
    "every_checkpoint_resumes_right_after_it": faulty.ResumesTooLate,
    "blocks_are_marked_at_their_last_transaction": faulty.NoBlockEnds,
    "a_subscriber_gets_the_past_and_what_happens_while_it_reads": faulty.LeavesOneOutWhileLive,
    "the_state_holds_a_transaction_when_its_event_comes": faulty.EventBeforeState,
    # private data
    "members_read_a_private_value": faulty.NoPrivateReads,
    "others_are_refused_the_value": faulty.open_collections,
    "everybody_has_the_hash": faulty.HidesHashes,
    "neither_value_nor_key_nor_transient_is_in_the_envelope": faulty.PlaintextEnvelopes,
    "nothing_is_visible_before_the_commit": faulty.private_at_once,
    "a_private_read_conflicts_with_a_write": faulty.no_private_versions,
    "an_invalid_transaction_leaves_no_private_value": faulty.private_writes_of_losers,
    "a_purge_removes_the_value_for_everybody": faulty.purge_keeps_the_value,
    "an_unknown_collection_is_refused": faulty.any_collection,
}


def test_every_promise_has_a_fault() -> None:
    assert {f"test_{name}" for name in FAULTS} == set(PROMISES)


@pytest.mark.parametrize("promise", sorted(FAULTS))
async def test_the_suite_notices(promise: str) -> None:
    fault = FAULTS[promise]
    wraps = isinstance(fault, type) and issubclass(fault, Wrapped)
    harness = FaultyHarness(None, fault) if wraps else FaultyHarness(fault, None)
    async with harness.open(Spec()) as network:
        with pytest.raises((AssertionError, TimeoutError, pytest.fail.Exception)):
            await getattr(LedgerPromises(), f"test_{promise}")(network)
