"""What is in force, in one log line at the start: what a person asks first when something is not as expected."""

from typing import Any

from watcher import __version__
from watcher.molecule_one import profile_of
from watcher.settings import Settings, format_duration


def in_force(settings: Settings, *, record: str, schema: str) -> dict[str, Any]:
    """Return what matters of the settings and the record; of secrets, only whether they are set. A pure function."""
    fragalysis, molecule_one, limits = settings.fragalysis, settings.molecule_one, settings.limits
    return {
        "version": __version__,
        "record": record,
        "schema": schema,
        "fragalysis": fragalysis.url,
        "signed_in": bool(fragalysis.token.get_secret_value()),
        "targets": list(fragalysis.targets),
        "exclude": list(fragalysis.exclude),
        "scan": fragalysis.scan_cron or f"every {format_duration(fragalysis.scan_interval)}",
        "molecule_one": molecule_one.base_url,
        "api_version": molecule_one.api_version,
        "profile": profile_of(molecule_one).key,
        "buys": bool(molecule_one.token.get_secret_value()),
        "on_unconfirmed": molecule_one.on_unconfirmed,
        "compounds_per_day": limits.compounds_per_day,
        "new_compounds_per_scan": limits.new_compounds_per_scan,
        "submit_private": limits.submit_private,
        "downloads": str(settings.download.directory.absolute()) if settings.download.enabled else None,
        "keep_uploads": settings.download.keep_uploads,
        "backup_keep": settings.database.backup_keep,
        "server": settings.server.listen or None,
        "notify": len(settings.notify.urls),
    }
