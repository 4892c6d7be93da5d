"""The terms of a payment, as versioned data: routes, fees, limits, quotas, rates and quotes."""
