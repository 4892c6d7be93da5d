"""The whole system on one machine: real servers, provisioned, and every process under one supervisor."""
