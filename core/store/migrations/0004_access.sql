-- What is needed before a tenant is known, and claims that must not wait for long.

-- The application finds a key by its id before it knows the tenant; nothing else crosses tenants.
CREATE FUNCTION fleet.find_service_key(key_id text) RETURNS SETOF fleet.service_keys
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT * FROM fleet.service_keys WHERE id = key_id
$$;
REVOKE ALL ON FUNCTION fleet.find_service_key FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.find_service_key TO fleet_app, fleet_worker;

-- Claim nonces of many keys and tenants at once; returns for each whether it was new. A nonce twice in one call is
-- new once: the first in order.
CREATE FUNCTION fleet.claim_nonces(p_tenants uuid[], p_keys text[], p_nonces text[]) RETURNS SETOF integer
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog AS $$
    -- Not worth waiting for the disk: after a crash a nonce of the last moments repeats an idempotent request at most.
    SELECT set_config('synchronous_commit', 'off', true);
    WITH asked AS (
        SELECT DISTINCT ON (key_id, nonce) tenant_id, key_id, nonce, place
        FROM unnest(p_tenants, p_keys, p_nonces) WITH ORDINALITY AS a(tenant_id, key_id, nonce, place)
        ORDER BY key_id, nonce, place
    ), made AS (
        INSERT INTO fleet.request_nonces (tenant_id, key_id, nonce)
        SELECT tenant_id, key_id, nonce FROM asked ORDER BY key_id, nonce
        ON CONFLICT DO NOTHING RETURNING key_id, nonce
    )
    SELECT a.place::integer FROM asked a JOIN made USING (key_id, nonce)
$$;
REVOKE ALL ON FUNCTION fleet.claim_nonces FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.claim_nonces TO fleet_app, fleet_worker;

-- Claim the keys whose `p_claim` is true, then tell what every key stands for. A key that another transaction holds
-- uncommitted is not waited for: lock_not_available is raised, and the caller answers "in flight".
-- Locks are taken in key order, so that two batches never deadlock.
CREATE FUNCTION fleet.claim_idempotency_keys(
    p_tenant uuid, p_service_key text, p_keys text[], p_hashes bytea[], p_intents uuid[], p_claim boolean[]
) RETURNS TABLE (key text, request_hash bytea, intent_id uuid)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog SET lock_timeout = '300ms' AS $$
BEGIN
    INSERT INTO fleet.idempotency_keys AS k (tenant_id, service_key_id, key, request_hash, intent_id)
    SELECT p_tenant, p_service_key, a.key, a.hash, a.intent
    FROM unnest(p_keys, p_hashes, p_intents, p_claim) AS a(key, hash, intent, claim)
    WHERE a.claim ORDER BY a.key
    ON CONFLICT DO NOTHING;
    RETURN QUERY SELECT k.key, k.request_hash, k.intent_id FROM fleet.idempotency_keys k
    WHERE k.tenant_id = p_tenant AND k.service_key_id = p_service_key AND k.key = ANY (p_keys);
END $$;
REVOKE ALL ON FUNCTION fleet.claim_idempotency_keys FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.claim_idempotency_keys TO fleet_app;
