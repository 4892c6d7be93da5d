"""What happens once a payment may be sent: permits, results, resolution, and the one door that ends a hold."""
