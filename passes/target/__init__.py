"""From a Spec to another graph: what it asks for, the plan, and the plan carried out."""
