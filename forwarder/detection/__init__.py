"""Audit event to friction events; pure: no IO, no asyncio, no clock."""
