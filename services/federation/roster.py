"""Who is in the federation: enrolment, leases, leaving. Times are seconds of a monotonic clock."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from .. import messages as m
from ..errors import Busy, NameTaken, UnknownLearner
from ..selection import Candidate
from .changes import Changes

MAX_LEARNERS = 20_000
WEBHOOK_LEASE_S = 30.0  # at least: a learner that is told by webhooks polls by itself every ten seconds only


@dataclass
class Member:
    """A learner that is in the federation."""

    id: str
    name: str
    token_hash: bytes
    request: m.JoinRequest
    joined_at: float
    last_seen: float
    state: Literal["active", "lost"] = "active"
    progress: m.Progress | None = None
    waiting: int = 0  # polls that wait: while there is one, the member is here
    webhook_secret: str | None = field(default=None, repr=False)
    key_hash: str | None = field(default=None, repr=False)  # of the key under which it enrolled
    refused: int = 0  # rounds in a row in which its update was refused (health.py)
    refused_task: str = ""  # the newest of their tasks
    aside: str | None = None  # why it is given no tasks
    failed: int = 0  # train tasks in a row that it could not do
    failure: str = ""  # why, of the last of them
    away: bool = False  # a round closed before it had fetched its task: until it asks again it is not drawn

    @property
    def candidate(self) -> Candidate:
        """This learner as a selector sees it."""
        return Candidate(self.id, self.name, self.request.labels)

    def can(self, kind: str) -> bool:
        """Whether it is here, not put aside, and does tasks of this kind."""
        return self.state == "active" and self.aside is None and kind in self.request.kinds

    def takes(self, encoding: str) -> bool:
        """Whether it reads and writes this form of tensors."""
        return encoding in self.request.encodings

    def heard_of(self, now: float) -> float:
        """When it was last here."""
        return now if self.waiting else self.last_seen

    def lapses_at(self, lease_s: float) -> float:
        """When it is lost if it is not heard of before."""
        if self.waiting:
            return math.inf
        return self.last_seen + (max(lease_s, WEBHOOK_LEASE_S) if self.request.callback_url else lease_s)


class EnrolmentRate:
    """How many learners may enrol: `burst` at once, `rate` per second in the long run (a token bucket)."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._left = float(burst)
        self._at = 0.0

    def take(self, now: float) -> None:
        """One more enrols; raises Busy when that is too many."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            why = f"too many learners enrol at once: after {self._burst} it takes {self._rate:g} a second"
            raise Busy(why, limit=self._burst)
        self._left -= 1


class Roster:
    """The members by id, by name and by the hash of their token."""

    def __init__(self, changes: Changes | None = None) -> None:
        self.changes = Changes() if changes is None else changes
        self.keeps_names = False  # of lost learners: nobody but whoever has its token returns under such a name
        self._members: dict[str, Member] = {}
        self._by_name: dict[str, str] = {}
        self._by_token: dict[bytes, str] = {}
        self._by_key: dict[str, str] = {}
        self._lease_s = math.nan  # that `_none_before` is of
        self._none_before = 0.0  # no lease of an active member ends before: each sign of life only moves it later

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def __len__(self) -> int:
        return len(self._members)

    def get(self, learner_id: str) -> Member:
        """The member; raises UnknownLearner."""
        member = self._members.get(learner_id)
        if member is None:
            raise UnknownLearner(f"there is no learner {learner_id!r}; it may have left: enrol again", id=learner_id)
        return member

    def find(self, learner_id: str) -> Member | None:
        """The member, or None when it is not here."""
        return self._members.get(learner_id)

    def by_token(self, token_hash: bytes) -> Member | None:
        """The member whose token has this hash."""
        learner_id = self._by_token.get(token_hash)
        return None if learner_id is None else self._members[learner_id]

    def enrolled_with(self, key_hash: str | None) -> Member | None:
        """The member that enrolled under the key of this hash."""
        return self._members.get(self._by_key.get(key_hash or "", ""))

    def use_token(self, member: Member) -> None:
        """Its token was seen: the key under which it enrolled gives no other any more."""
        if member.key_hash is not None:
            self._by_key.pop(member.key_hash, None)
            member.key_hash = None
            self.changes.members.add(member.id)

    def give_token(self, member: Member, token_hash: bytes) -> None:
        """A member gets another token; the one before, which nobody has used, is void."""
        del self._by_token[member.token_hash]
        member.token_hash = token_hash
        self._by_token[token_hash] = member.id
        self.changes.members.add(member.id)

    def holder(self, name: str) -> Member | None:
        """The member that has this name."""
        learner_id = self._by_name.get(name)
        return None if learner_id is None else self._members[learner_id]

    def yields(self, holder: Member) -> bool:
        """Whether whoever comes may take its name."""
        return holder.state == "lost" and not self.keeps_names

    def enrol(self, member: Member, lease_s: float) -> None:
        """Add a member; raises NameTaken while another has the name, Busy when the federation is full."""
        holder = self.holder(member.name)
        if holder is not None:
            raise self._taken(holder, member.joined_at, lease_s)
        if len(self) >= MAX_LEARNERS:
            raise Busy(f"the federation is full: it takes {MAX_LEARNERS} learners", limit=MAX_LEARNERS)
        self._members[member.id] = member
        self.changes.members.add(member.id)
        self._by_name[member.name] = member.id
        self._by_token[member.token_hash] = member.id
        if member.key_hash:
            self._by_key[member.key_hash] = member.id

    def _taken(self, holder: Member, now: float, lease_s: float) -> NameTaken:
        who = f"{holder.name!r} is the name of another learner, which is {'lost' if holder.state == 'lost' else 'here'}"
        ways = "choose another name, or present its token"
        if self.keeps_names:
            return NameTaken(
                f"{who}, and stays its own until it leaves: {ways}, or let an operator DELETE /v1/learners/{holder.id}",
                name=holder.name,
                id=holder.id,
            )
        left_s = math.ceil(max(1.0, min(holder.lapses_at(lease_s), now + lease_s) - now))
        return NameTaken(
            f"{who}, and is free once it was silent for its lease, in {left_s} s at the earliest: {ways}",
            name=holder.name,
            headers={"Retry-After": str(left_s)},
        )

    def remove(self, learner_id: str) -> Member:
        """Take a member out, its name and token with it."""
        member = self.get(learner_id)
        self.changes.members.add(learner_id)
        del self._members[learner_id]
        del self._by_name[member.name]
        del self._by_token[member.token_hash]
        self._by_key.pop(member.key_hash or "", None)
        return member

    def extend(self, by_s: float, now: float) -> None:
        """Nobody was heard for so long, up to now: the leases of active members end that much later."""
        for member in self:
            if member.state == "active" and member.last_seen < now:
                member.last_seen = min(now, member.last_seen + by_s)

    def renew(self, now: float) -> None:
        """The leases of active members begin anew."""
        self.extend(math.inf, now)

    def lapsed(self, now: float, lease_s: float) -> list[Member]:
        """Active members that were not heard of within the lease; they are lost from now on."""
        if lease_s == self._lease_s and now < self._none_before:
            return []
        gone = [member for member in self if member.state == "active" and now >= member.lapses_at(lease_s)]
        for member in gone:
            member.state = "lost"
            self.changes.members.add(member.id)
        self._lease_s, self._none_before = lease_s, min(now + lease_s, self._first_lapse(lease_s))
        return gone

    def next_lapse(self, lease_s: float) -> float | None:
        """When the next lease may end; None while none can."""
        if not any(one.state == "active" for one in self):
            return None
        first = self._none_before if lease_s == self._lease_s else self._first_lapse(lease_s)
        return None if math.isinf(first) else first

    def _first_lapse(self, lease_s: float) -> float:
        return min((one.lapses_at(lease_s) for one in self if one.state == "active"), default=math.inf)
