use std::rc::Rc;
pub async fn watch(_: Rc<crate::agent::Agent>, _: Rc<crate::container::Container>) { std::future::pending().await }
