"""The record itself: its name, its scans."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from watcher.store.schema import Instance


async def instance(session: AsyncSession) -> Instance:
    """Return the record's own row."""
    return (await session.scalars(select(Instance))).one()
