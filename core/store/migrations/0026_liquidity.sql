-- Whether liquidity may be overdrawn is a flag of its ledger account; who changed it is kept beside it.

CREATE TABLE fleet.liquidity_changes (
    tenant_id    uuid        NOT NULL,
    account_id   uuid        NOT NULL,
    currency     text        NOT NULL,
    may_overdraw boolean     NOT NULL,
    changed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_by   text        NOT NULL,
    PRIMARY KEY (account_id, changed_at)
);
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON fleet.liquidity_changes
    FOR EACH STATEMENT EXECUTE FUNCTION fleet.refuse_change();
SELECT fleet.confine_to_tenant('liquidity_changes');
GRANT SELECT, INSERT ON fleet.liquidity_changes TO fleet_app, fleet_worker;

-- Let an account of liquidity (code 6) be overdrawn, or no more; false where it is overdrawn now, or is none.
-- Runs with the owner's rights: nobody else may change the flags of an account.
CREATE FUNCTION fleet.set_overdraft(p_tenant uuid, p_account uuid, p_allowed boolean) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF NOT pg_has_role(session_user, 'fleet_worker', 'MEMBER')
        AND p_tenant IS DISTINCT FROM nullif(current_setting('fleet.tenant', true), '')::uuid THEN
        RAISE EXCEPTION 'an account of another tenant than the transaction''s' USING ERRCODE = 'insufficient_privilege';
    END IF;
    UPDATE fleet.accounts SET flags = CASE WHEN p_allowed THEN flags & ~1 ELSE flags | 1 END
    WHERE id = p_account AND tenant_id = p_tenant AND code = 6;
    RETURN FOUND;
EXCEPTION WHEN check_violation THEN
    RETURN false;
END $$;
REVOKE ALL ON FUNCTION fleet.set_overdraft FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.set_overdraft TO fleet_app, fleet_worker;
