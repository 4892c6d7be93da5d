-- Most requests come alone. What `claim_requests` does for many costs one of them twice as much as it needs.

-- Do for one request as `claim_requests` does for many: spend its nonce, if it has one, claim its key where `p_claim` is
-- true, and tell what the key stands for; nothing but `replayed` where the nonce was seen before. Each statement here
-- sees what others have committed meanwhile, so the caller has nothing to read afterwards.
CREATE FUNCTION fleet.claim_request(
    p_tenant uuid, p_service_key text, p_key text, p_hash bytea, p_intent uuid, p_claim boolean, p_nonce text,
    OUT request_hash bytea, OUT intent_id uuid, OUT replayed boolean
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog SET lock_timeout = '300ms' AS $$
#variable_conflict use_column
BEGIN
    IF p_tenant IS DISTINCT FROM nullif(current_setting('fleet.tenant', true), '')::uuid THEN
        RAISE EXCEPTION 'a request of another tenant than the transaction''s' USING ERRCODE = 'insufficient_privilege';
    END IF;
    replayed := false;
    IF p_nonce IS NOT NULL THEN
        INSERT INTO fleet.request_nonces (tenant_id, key_id, nonce) VALUES (p_tenant, p_service_key, p_nonce)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            replayed := true;
            RETURN;
        END IF;
    END IF;
    IF p_claim THEN
        INSERT INTO fleet.idempotency_keys (tenant_id, service_key_id, key, request_hash, intent_id)
        VALUES (p_tenant, p_service_key, p_key, p_hash, p_intent)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            request_hash := p_hash;
            intent_id := p_intent;
            RETURN;
        END IF;
    END IF;
    SELECT k.request_hash, k.intent_id INTO request_hash, intent_id FROM fleet.idempotency_keys k
    WHERE k.tenant_id = p_tenant AND k.service_key_id = p_service_key AND k.key = p_key;
END $$;
REVOKE ALL ON FUNCTION fleet.claim_request FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.claim_request TO fleet_app;
