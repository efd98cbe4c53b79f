"""Role-based access control: rules, who has them, and whether they allow a request. Pure: objects in, answers out."""
