-- Reviews that are over are found by their time each second; by id, the walk passed every intent there is.
CREATE INDEX intents_review_until ON fleet.intents (review_until) WHERE review_until IS NOT NULL;
