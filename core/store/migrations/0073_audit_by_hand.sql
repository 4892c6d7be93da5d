-- What a hand does to a wallet, to an account's state or overdraft, and money that is made by hand, is journalled by the
-- database. At the commit: the journal's lock comes after every other. Arguments: the action, the subject's kind, the
-- columns to tell; a wallet's owner is a person and is not told.
CREATE FUNCTION fleet.audit_row() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    actor text := coalesce(nullif(current_setting('fleet.actor', true), ''),
        session_user || ' by ' || coalesce(nullif(current_setting('application_name', true), ''), 'an unnamed program'));
    told  jsonb;
BEGIN
    SELECT jsonb_object_agg(c.name, to_jsonb(NEW)->c.name) INTO told
    FROM unnest(TG_ARGV[2:]) AS c(name);
    IF TG_OP = 'UPDATE' THEN
        told := told || jsonb_build_object('before', (
            SELECT jsonb_object_agg(c.name, to_jsonb(OLD)->c.name) FROM unnest(TG_ARGV[2:]) AS c(name)));
    END IF;
    PERFORM fleet.audit_append(ARRAY[NEW.tenant_id], ARRAY[actor], ARRAY[TG_ARGV[0]],
        ARRAY[TG_ARGV[1] || ':' || NEW.id], ARRAY[told::text]);
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION fleet.audit_row FROM PUBLIC;

CREATE CONSTRAINT TRIGGER audit_change AFTER UPDATE ON fleet.wallets DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (OLD.* IS DISTINCT FROM NEW.*)
    EXECUTE FUNCTION fleet.audit_row('wallet_changed', 'wallet', 'tier', 'external_id');
-- flags: 1 no overdraft below zero, 4 closed, 8 frozen. Statements that move balances alone do not name the column.
CREATE CONSTRAINT TRIGGER audit_flags AFTER UPDATE OF flags ON fleet.accounts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (OLD.flags IS DISTINCT FROM NEW.flags)
    EXECUTE FUNCTION fleet.audit_row('account_changed', 'account', 'code', 'flags');
CREATE CONSTRAINT TRIGGER audit_adjustment AFTER INSERT ON fleet.intents DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.operation = 'MANUAL_ADJUSTMENT')
    EXECUTE FUNCTION fleet.audit_row('adjusted_by_hand', 'intent', 'service_key_id', 'wallet_id', 'direction',
        'amount_minor', 'currency', 'state');
