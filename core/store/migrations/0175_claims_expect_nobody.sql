-- Nearly every key and nonce is new. ON CONFLICT looks for each before it writes it, and marks its row as tentative and
-- then as meant; and all keys were looked for once more, to tell what they stand for. What is new is now written as such,
-- and only a batch in which something was there already, or comes twice, goes that longer way: half of what the claims
-- of a batch of new payments cost.

-- Spend the nonces, claim the keys whose `p_claim` is true, and tell what every key stands for. A request whose nonce
-- was seen before claims nothing and is told with `replayed`; of two requests with one nonce the first counts, and
-- whoever was signed in another way has none. A key or nonce that another transaction holds uncommitted is not waited
-- for: lock_not_available is raised, and the caller answers "in flight".
-- Locks are taken in the order of nonces, then of keys, so that two batches never deadlock.
-- What was committed by others while this ran may be missing: the caller reads it by a statement of its own.
-- Runs with the owner's rights, for nonces belong to no role of the application: the tenant is checked at the top.
CREATE OR REPLACE FUNCTION fleet.claim_requests(
    p_tenant uuid, p_service_key text, p_keys text[], p_hashes bytea[], p_intents uuid[], p_claim boolean[],
    p_nonces text[]
) RETURNS TABLE (key text, request_hash bytea, intent_id uuid, replayed boolean)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog SET lock_timeout = '300ms'
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    IF p_tenant IS DISTINCT FROM nullif(current_setting('fleet.tenant', true), '')::uuid THEN
        RAISE EXCEPTION 'a request of another tenant than the transaction''s' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF true = ALL (p_claim) THEN
        BEGIN
            INSERT INTO fleet.request_nonces (tenant_id, key_id, nonce)
            SELECT p_tenant, p_service_key, a.nonce FROM unnest(p_nonces) AS a(nonce)
            WHERE a.nonce IS NOT NULL ORDER BY a.nonce;
            INSERT INTO fleet.idempotency_keys (tenant_id, service_key_id, key, request_hash, intent_id)
            SELECT p_tenant, p_service_key, a.key, a.hash, a.intent
            FROM unnest(p_keys, p_hashes, p_intents) AS a(key, hash, intent) ORDER BY a.key;
            RETURN QUERY SELECT a.key, a.hash, a.intent, false
            FROM unnest(p_keys, p_hashes, p_intents) AS a(key, hash, intent);
            RETURN;
        EXCEPTION WHEN unique_violation THEN
            -- Nothing of this block was done. What follows tells what was new from what was not.
            NULL;
        END;
    END IF;
    RETURN QUERY WITH asked AS MATERIALIZED (
        SELECT a.*, a.nonce IS NULL OR row_number() OVER (PARTITION BY a.nonce ORDER BY a.place) = 1 AS first
        FROM unnest(p_keys, p_hashes, p_intents, p_claim, p_nonces) WITH ORDINALITY
            AS a(key, hash, intent, claim, nonce, place)
    ), spent AS (
        INSERT INTO fleet.request_nonces AS n (tenant_id, key_id, nonce)
        SELECT p_tenant, p_service_key, a.nonce FROM asked a WHERE a.nonce IS NOT NULL AND a.first ORDER BY a.nonce
        ON CONFLICT DO NOTHING RETURNING n.nonce
    ), known AS MATERIALIZED (
        SELECT a.*, a.nonce IS NOT NULL AND NOT (a.first AND a.nonce IN (SELECT s.nonce FROM spent s)) AS seen
        FROM asked a
    ), claimed AS (
        INSERT INTO fleet.idempotency_keys AS k (tenant_id, service_key_id, key, request_hash, intent_id)
        SELECT p_tenant, p_service_key, a.key, a.hash, a.intent FROM known a WHERE a.claim AND NOT a.seen ORDER BY a.key
        ON CONFLICT DO NOTHING RETURNING k.key, k.request_hash, k.intent_id
    )
    SELECT c.key, c.request_hash, c.intent_id, false FROM claimed c
    UNION ALL
    SELECT k.key, k.request_hash, k.intent_id, false FROM fleet.idempotency_keys k
    WHERE k.tenant_id = p_tenant AND k.service_key_id = p_service_key AND k.key = ANY (p_keys)
    UNION ALL
    SELECT a.key, NULL, NULL, true FROM known a WHERE a.seen;
END $$;
