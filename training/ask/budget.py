"""Dollars that a run may spend: reserved before a call, settled by its bill."""

import asyncio


class Budget:
    """A limit in USD that calls under way at the same time share.

    A call reserves the greater of its estimate and the dearest call of its tier so far. So the run
    ends below the limit unless calls that are already under way turn out dearer than any before.
    """

    def __init__(self, limit: float, spent: float = 0.0) -> None:
        self.limit, self.spent = limit, spent
        self._reserved = 0.0
        self._dearest: dict[str, float] = {}
        self._changed = asyncio.Condition()

    async def reserve(self, tier: str, usd: float) -> float | None:
        """What was set aside for a call, or None where the budget does not hold it any more.

        Waits while calls under way may yet turn out cheaper than what they reserved.
        """
        usd = max(usd, self._dearest.get(tier, 0.0))
        async with self._changed:
            while self.spent + self._reserved + usd > self.limit:
                if self._reserved <= 1e-12 or self.spent + usd > self.limit:
                    return None
                await self._changed.wait()
            self._reserved += usd
        return usd

    async def settle(self, tier: str, reserved: float, billed: float) -> None:
        """Replace what was reserved by the bill."""
        async with self._changed:
            self._reserved = max(self._reserved - reserved, 0.0)
            self.spent += billed
            self._dearest[tier] = max(self._dearest.get(tier, 0.0), billed)
            self._changed.notify_all()
