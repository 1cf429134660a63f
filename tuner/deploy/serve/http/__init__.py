"""What clients of the service speak to: requests, answers, limits, the token, the server, and the page."""
