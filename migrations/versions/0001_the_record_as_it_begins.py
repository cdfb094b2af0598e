"""The record as it begins."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables of an empty record."""
    op.create_table(
        "compound",
        sa.Column("id", WHOLE, nullable=False),
        sa.Column("smiles", sa.Text(), nullable=False),
        sa.Column("smiles_digest", sa.Text(), nullable=False),
        sa.Column("inchikey", sa.Text(), nullable=False),
        sa.Column("heavy_atoms", WHOLE, nullable=False),
        sa.Column("sa_score", sa.Double(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_compound")),
        sa.UniqueConstraint("smiles_digest", name=op.f("uq_compound_smiles_digest")),
    )
    with op.batch_alter_table("compound", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_compound_inchikey"), ["inchikey"], unique=False)

    op.create_table(
        "condition",
        sa.Column("id", WHOLE, nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", WHOLE, nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_condition")),
    )
    with op.batch_alter_table("condition", schema=None) as batch_op:
        batch_op.create_index(
            "uq_condition_open",
            ["subject", "kind"],
            unique=True,
            sqlite_where=sa.text("until IS NULL"),
            postgresql_where=sa.text("until IS NULL"),
        )

    op.create_table(
        "foreign_batch",
        sa.Column("remote_id", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("remote_id", name=op.f("pk_foreign_batch")),
    )
    op.create_table(
        "instance",
        sa.Column("id", WHOLE, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("program_version", sa.Text(), nullable=False),
        sa.Column("scan_no", WHOLE, nullable=False),
        sa.Column("last_scan_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("scan_due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("scan_attempts", WHOLE, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_instance_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", WHOLE, nullable=False),
        sa.Column("address", WHOLE, nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("condition_id", WHOLE, nullable=True),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", WHOLE, nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.create_index(
            "ix_outbox_waiting",
            ["due_at"],
            unique=False,
            sqlite_where=sa.text("sent_at IS NULL"),
            postgresql_where=sa.text("sent_at IS NULL"),
        )
        batch_op.create_index(batch_op.f("ix_outbox_condition_id"), ["condition_id"], unique=False)

    op.create_table(
        "profile",
        sa.Column("id", WHOLE, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("api_version", sa.Text(), nullable=False),
        sa.Column("normalised", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("approved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("approved_by", sa.Text(), nullable=True),
        sa.Column("resumed_after", WHOLE, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_profile")),
        sa.UniqueConstraint("key", name=op.f("uq_profile_key")),
    )
    op.create_table(
        "target",
        sa.Column("id", WHOLE, nullable=False),
        sa.Column("stack", sa.Text(), nullable=False),
        sa.Column("remote_id", WHOLE, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("target_access_string", sa.Text(), nullable=False),
        sa.Column("open_to_public", sa.Boolean(), nullable=True),
        sa.Column("followed", sa.Boolean(), nullable=False),
        sa.Column("listed", sa.Boolean(), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("remote_index", WHOLE, nullable=True),
        sa.Column("current_upload_id", WHOLE, nullable=True),
        sa.Column("baseline_upload_id", WHOLE, nullable=True),
        sa.Column("last_success_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_target")),
        sa.UniqueConstraint("stack", "remote_id", name=op.f("uq_target_stack_remote_id")),
    )
    op.create_table(
        "transition",
        sa.Column("id", WHOLE, nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("entity_id", WHOLE, nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("old", sa.Text(), nullable=True),
        sa.Column("new", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transition")),
    )
    with op.batch_alter_table("transition", schema=None) as batch_op:
        batch_op.create_index("ix_transition_entity", ["entity", "entity_id"], unique=False)

    op.create_table(
        "alias",
        sa.Column("id", WHOLE, nullable=False),
        sa.Column("raw", sa.Text(), nullable=False),
        sa.Column("raw_digest", sa.Text(), nullable=False),
        sa.Column("compound_id", WHOLE, nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("removed", sa.Text(), nullable=True),
        sa.Column("cxsmiles", sa.Text(), nullable=True),
        sa.Column("chemistry", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("(compound_id IS NULL) <> (reason IS NULL)", name=op.f("ck_alias_one_verdict")),
        sa.ForeignKeyConstraint(["compound_id"], ["compound.id"], name=op.f("fk_alias_compound_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alias")),
        sa.UniqueConstraint("raw_digest", name=op.f("uq_alias_raw_digest")),
    )
    with op.batch_alter_table("alias", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_alias_compound_id"), ["compound_id"], unique=False)

    op.create_table(
        "batch",
        sa.Column("id", WHOLE, nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("profile_id", WHOLE, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("size", WHOLE, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("payload_digest", sa.Text(), nullable=False),
        sa.Column("refused_in", sa.Text(), nullable=True),
        sa.Column("remote_id", sa.Text(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("collected_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("unconfirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", WHOLE, nullable=False),
        sa.Column("looks", WHOLE, nullable=False),
        sa.Column("queued", WHOLE, nullable=True),
        sa.Column("running", WHOLE, nullable=True),
        sa.Column("finished", WHOLE, nullable=True),
        sa.Column("error", WHOLE, nullable=True),
        sa.CheckConstraint(
            "state IN ('submitting', 'submitted', 'finished', 'collected', 'closed', "
            "'unconfirmed', 'released', 'lost')",
            name=op.f("ck_batch_state"),
        ),
        sa.ForeignKeyConstraint(["profile_id"], ["profile.id"], name=op.f("fk_batch_profile_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch")),
        sa.UniqueConstraint("remote_id", name=op.f("uq_batch_remote_id")),
        sa.UniqueConstraint("token", name=op.f("uq_batch_token")),
    )
    with op.batch_alter_table("batch", schema=None) as batch_op:
        batch_op.create_index("ix_batch_sent_at", ["sent_at"], unique=False)
        batch_op.create_index("ix_batch_state", ["state", "due_at"], unique=False)

    op.create_table(
        "claim",
        sa.Column("id", WHOLE, nullable=False),
        sa.Column("compound_id", WHOLE, nullable=False),
        sa.Column("profile_id", WHOLE, nullable=False),
        sa.Column("round", WHOLE, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("scan_no", WHOLE, nullable=False),
        sa.Column("counted_in", WHOLE, nullable=True),
        sa.Column("over_scan_limit", sa.Boolean(), nullable=False),
        sa.Column("approved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("approved_by", sa.Text(), nullable=True),
        sa.Column("refused_in", sa.Text(), nullable=True),
        sa.Column("asked_by", sa.Text(), nullable=True),
        sa.Column("asked_why", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "state IN ('wanted', 'withheld', 'reserved', 'scored', 'no_route', 'failed')", name=op.f("ck_claim_state")
        ),
        sa.CheckConstraint("round = 1 OR asked_by IS NOT NULL", name=op.f("ck_claim_further_round_is_asked_for")),
        sa.ForeignKeyConstraint(["compound_id"], ["compound.id"], name=op.f("fk_claim_compound_id")),
        sa.ForeignKeyConstraint(["profile_id"], ["profile.id"], name=op.f("fk_claim_profile_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_claim")),
        sa.UniqueConstraint("compound_id", "profile_id", "round", name=op.f("uq_claim_compound_id_profile_id_round")),
    )
    with op.batch_alter_table("claim", schema=None) as batch_op:
        batch_op.create_index("ix_claim_counted_in", ["counted_in"], unique=False)
        batch_op.create_index("ix_claim_state", ["state", "profile_id", "reason"], unique=False)

    op.create_table(
        "upload",
        sa.Column("id", WHOLE, nullable=False),
        sa.Column("target_id", WHOLE, nullable=False),
        sa.Column("upload_index", WHOLE, nullable=False),
        sa.Column("committed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("scan_no", WHOLE, nullable=False),
        sa.Column("archive_state", sa.Text(), nullable=False),
        sa.Column("archive_due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("archive_attempts", WHOLE, nullable=False),
        sa.Column("archive_undecodable", WHOLE, nullable=False),
        sa.Column("archive_error", sa.Text(), nullable=True),
        sa.Column("archive_task", sa.Text(), nullable=True),
        sa.Column("archive_task_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("archive_path", sa.Text(), nullable=True),
        sa.Column("archive_sha256", sa.Text(), nullable=True),
        sa.Column("archive_size", WHOLE, nullable=True),
        sa.Column("archive_verified_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("scoring_state", sa.Text(), nullable=False),
        sa.Column("scoring_due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("scoring_attempts", WHOLE, nullable=False),
        sa.Column("scoring_error", sa.Text(), nullable=True),
        sa.Column("extracted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settle_due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("scored_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("program_version", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "archive_state IN ('wanted', 'stored', 'unavailable', 'skipped', 'quarantined', 'pruned')",
            name=op.f("ck_upload_archive_state"),
        ),
        sa.CheckConstraint(
            "scoring_state IN ('detected', 'extracted', 'scored', 'history', 'quarantined')",
            name=op.f("ck_upload_scoring_state"),
        ),
        sa.ForeignKeyConstraint(["target_id"], ["target.id"], name=op.f("fk_upload_target_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upload")),
        sa.UniqueConstraint(
            "target_id", "upload_index", "committed_at", name=op.f("uq_upload_target_id_upload_index_committed_at")
        ),
    )
    with op.batch_alter_table("upload", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_upload_scoring_state"), ["scoring_state"], unique=False)

    op.create_table(
        "batch_item",
        sa.Column("id", WHOLE, nullable=False),
        sa.Column("batch_id", WHOLE, nullable=False),
        sa.Column("position", WHOLE, nullable=False),
        sa.Column("claim_id", WHOLE, nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_batch_item_batch_id")),
        sa.ForeignKeyConstraint(["claim_id"], ["claim.id"], name=op.f("fk_batch_item_claim_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch_item")),
        sa.UniqueConstraint("batch_id", "position", name=op.f("uq_batch_item_batch_id_position")),
    )
    with op.batch_alter_table("batch_item", schema=None) as batch_op:
        batch_op.create_index("ix_batch_item_claim_id", ["claim_id"], unique=False)
        batch_op.create_index(
            "uq_batch_item_live",
            ["claim_id"],
            unique=True,
            sqlite_where=sa.text("live"),
            postgresql_where=sa.text("live"),
        )

    op.create_table(
        "observation",
        sa.Column("id", WHOLE, nullable=False),
        sa.Column("upload_id", WHOLE, nullable=False),
        sa.Column("remote_id", WHOLE, nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("longcode", sa.Text(), nullable=False),
        sa.Column("compound_code", sa.Text(), nullable=True),
        sa.Column("alias_id", WHOLE, nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["alias_id"], ["alias.id"], name=op.f("fk_observation_alias_id")),
        sa.ForeignKeyConstraint(["upload_id"], ["upload.id"], name=op.f("fk_observation_upload_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_observation")),
        sa.UniqueConstraint("upload_id", "remote_id", name=op.f("uq_observation_upload_id_remote_id")),
    )
    with op.batch_alter_table("observation", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_observation_alias_id"), ["alias_id"], unique=False)

    op.create_table(
        "score",
        sa.Column("id", WHOLE, nullable=False),
        sa.Column("batch_id", WHOLE, nullable=False),
        sa.Column("claim_id", WHOLE, nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("smiles", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("result", sa.Double(), nullable=True),
        sa.Column("certainty", sa.Double(), nullable=True),
        sa.Column("price_usd", sa.Double(), nullable=True),
        sa.Column("reaction_count", WHOLE, nullable=True),
        sa.Column("timed_out", sa.Boolean(), nullable=True),
        sa.Column("route", sa.Text(), nullable=True),
        sa.Column("raw", sa.Text(), nullable=False),
        sa.Column("raw_digest", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_score_batch_id")),
        sa.ForeignKeyConstraint(["claim_id"], ["claim.id"], name=op.f("fk_score_claim_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_score")),
        sa.UniqueConstraint("batch_id", "raw_digest", name=op.f("uq_score_batch_id_raw_digest")),
    )
    with op.batch_alter_table("score", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_score_claim_id"), ["claim_id"], unique=False)
