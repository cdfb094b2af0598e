BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE alias (
	id INTEGER NOT NULL, 
	raw TEXT NOT NULL, 
	raw_digest TEXT NOT NULL, 
	compound_id INTEGER, 
	reason TEXT, 
	detail TEXT, 
	removed TEXT, 
	cxsmiles TEXT, 
	chemistry TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_alias PRIMARY KEY (id), 
	CONSTRAINT ck_alias_one_verdict CHECK ((compound_id IS NULL) <> (reason IS NULL)), 
	CONSTRAINT uq_alias_raw_digest UNIQUE (raw_digest), 
	CONSTRAINT fk_alias_compound_id FOREIGN KEY(compound_id) REFERENCES compound (id)
);
INSERT INTO "alias" VALUES(1,'CCO','ab1de819ede91df490e6441934decfa9041b49f91d6bbadbba4df634ccff57fa',1,NULL,NULL,NULL,NULL,'in the process of the tests','2026-03-01 12:00:00.000000');
INSERT INTO "alias" VALUES(2,'CCN','c4a9b106555ef387049238b8083ca645334f413e66bdc2f7db385f362889f386',2,NULL,NULL,NULL,NULL,'in the process of the tests','2026-03-01 12:00:00.000000');
INSERT INTO "alias" VALUES(3,'c1ccccc1','13cad05ca8f49c509e5b7be8c67668484344ebf2b2d12b03b295f14d4b1c32d1',3,NULL,NULL,NULL,NULL,'in the process of the tests','2026-03-01 12:00:00.000000');
INSERT INTO "alias" VALUES(4,'CCCl','4a080a2a20baa1b8e12f75068f70ff414f1d38c594e10dc956a4b6c31017f3aa',4,NULL,NULL,NULL,NULL,'in the process of the tests','2026-03-01 12:00:00.000000');
INSERT INTO "alias" VALUES(5,'CCC','8c55ff95a660f37cb05e644e7691e6c66593f453cb2cbaa4d64aa59b40ae8032',5,NULL,NULL,NULL,NULL,'in the process of the tests','2026-03-01 12:00:32.500000');
INSERT INTO "alias" VALUES(6,'nonsense','999aaa8645bb72ff599e143b1e3d2a94777127f4783a69f067251f7bbebc5ab6',NULL,'not_smiles','''nonsense'' looks like a name or a code, not a SMILES',NULL,NULL,'in the process of the tests','2026-03-01 12:00:32.500000');
CREATE TABLE batch (
	id INTEGER NOT NULL, 
	token TEXT NOT NULL, 
	profile_id INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	reason TEXT, 
	size INTEGER NOT NULL, 
	payload TEXT NOT NULL, 
	payload_digest TEXT NOT NULL, 
	refused_in TEXT, 
	remote_id TEXT, 
	answer TEXT, 
	outcome TEXT, 
	created_at DATETIME NOT NULL, 
	sent_at DATETIME NOT NULL, 
	submitted_at DATETIME, 
	finished_at DATETIME, 
	collected_at DATETIME, 
	deleted_at DATETIME, 
	closed_at DATETIME, 
	unconfirmed_at DATETIME, 
	due_at DATETIME, 
	attempts INTEGER NOT NULL, 
	looks INTEGER NOT NULL, 
	queued INTEGER, 
	running INTEGER, 
	finished INTEGER, 
	error INTEGER, 
	CONSTRAINT pk_batch PRIMARY KEY (id), 
	CONSTRAINT ck_batch_state CHECK (state IN ('submitting', 'submitted', 'finished', 'collected', 'closed', 'unconfirmed', 'released', 'lost')), 
	CONSTRAINT uq_batch_token UNIQUE (token), 
	CONSTRAINT fk_batch_profile_id FOREIGN KEY(profile_id) REFERENCES profile (id), 
	CONSTRAINT uq_batch_remote_id UNIQUE (remote_id)
);
INSERT INTO "batch" VALUES(1,'cb529b5953c046a0b510e8983dfde08f',1,'collected','every result is stored',2,'{"targets":["CCO","CCN"],"parameters":{},"detail_level":"score","priority":5,"invalid_target_strategy":"pass","name":"watcher/bc1c8aab206e/cb529b5953c046a0b510e8983dfde08f"}','55e15833dbf013262104fa42532909f9d585dc1ebc18eca1f1e42886182011d2',NULL,'e4c32452-fdc9-41a9-a859-3f9e621b246b','{"id": "e4c32452-fdc9-41a9-a859-3f9e621b246b", "size": 2, "createdAt": "2026-11-22T00:57:29.585Z", "updatedAt": "2026-11-22T00:57:29.585Z", "name": "watcher/bc1c8aab206e/cb529b5953c046a0b510e8983dfde08f"}','accepted','2026-03-01 12:00:00.000000','2026-03-01 12:00:00.000000','2026-03-01 12:00:00.000000','2026-03-01 12:00:32.500000','2026-03-01 12:00:32.500000',NULL,NULL,NULL,NULL,0,1,0,0,2,0);
INSERT INTO "batch" VALUES(2,'909d248811fe473daf5c201a3fbf43a2',1,'collected','every result is stored',1,'{"targets":["c1ccccc1"],"parameters":{},"detail_level":"score","priority":5,"invalid_target_strategy":"pass","name":"watcher/bc1c8aab206e/909d248811fe473daf5c201a3fbf43a2"}','b1b790d1fcbd1050c633d9ea92c5c14f330488bc90b35d8e2009dd9b1311e15f',NULL,'6d54c267-91d1-44c4-845b-99fedce2ade0','{"id": "6d54c267-91d1-44c4-845b-99fedce2ade0", "size": 1, "createdAt": "2026-11-22T00:57:29.670Z", "updatedAt": "2026-11-22T00:57:29.670Z", "name": "watcher/bc1c8aab206e/909d248811fe473daf5c201a3fbf43a2"}','accepted','2026-03-01 12:00:00.000000','2026-03-01 12:00:00.000000','2026-03-01 12:00:00.000000','2026-03-01 12:00:32.500000','2026-03-01 12:00:32.500000',NULL,NULL,NULL,NULL,0,1,0,0,1,0);
INSERT INTO "batch" VALUES(3,'be5070af33b04c3aa099e15a68bcebc1',1,'unconfirmed','POST /api/v2/batch-search: the server closed the connection without an answer',1,'{"targets":["CCC"],"parameters":{},"detail_level":"score","priority":5,"invalid_target_strategy":"pass","name":"watcher/bc1c8aab206e/be5070af33b04c3aa099e15a68bcebc1"}','c4dc63ad0102a8d2777a929874e098af705d3067da40ceb21fb73cbac4bf5938',NULL,NULL,'POST /api/v2/batch-search: the server closed the connection without an answer','unknown','2026-03-01 12:00:32.500000','2026-03-01 12:00:32.500000',NULL,NULL,NULL,NULL,NULL,'2026-03-01 12:00:32.500000','2026-03-01 12:30:32.500000',0,0,NULL,NULL,NULL,NULL);
CREATE TABLE batch_item (
	id INTEGER NOT NULL, 
	batch_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	claim_id INTEGER NOT NULL, 
	live BOOLEAN NOT NULL, 
	CONSTRAINT pk_batch_item PRIMARY KEY (id), 
	CONSTRAINT uq_batch_item_batch_id_position UNIQUE (batch_id, position), 
	CONSTRAINT fk_batch_item_batch_id FOREIGN KEY(batch_id) REFERENCES batch (id), 
	CONSTRAINT fk_batch_item_claim_id FOREIGN KEY(claim_id) REFERENCES claim (id)
);
INSERT INTO "batch_item" VALUES(1,1,0,1,1);
INSERT INTO "batch_item" VALUES(2,1,1,2,1);
INSERT INTO "batch_item" VALUES(3,2,0,3,1);
INSERT INTO "batch_item" VALUES(4,3,0,5,1);
CREATE TABLE claim (
	id INTEGER NOT NULL, 
	compound_id INTEGER NOT NULL, 
	profile_id INTEGER NOT NULL, 
	round INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	reason TEXT, 
	scan_no INTEGER NOT NULL, 
	counted_in INTEGER, 
	over_scan_limit BOOLEAN NOT NULL, 
	approved_at DATETIME, 
	approved_by TEXT, 
	refused_in TEXT, 
	asked_by TEXT, 
	asked_why TEXT, 
	created_at DATETIME NOT NULL, 
	changed_at DATETIME NOT NULL, 
	CONSTRAINT pk_claim PRIMARY KEY (id), 
	CONSTRAINT uq_claim_compound_id_profile_id_round UNIQUE (compound_id, profile_id, round), 
	CONSTRAINT ck_claim_further_round_is_asked_for CHECK (round = 1 OR asked_by IS NOT NULL), 
	CONSTRAINT ck_claim_state CHECK (state IN ('wanted', 'withheld', 'reserved', 'scored', 'no_route', 'failed')), 
	CONSTRAINT fk_claim_compound_id FOREIGN KEY(compound_id) REFERENCES compound (id), 
	CONSTRAINT fk_claim_profile_id FOREIGN KEY(profile_id) REFERENCES profile (id)
);
INSERT INTO "claim" VALUES(1,1,1,1,'scored',NULL,1,1,0,NULL,NULL,NULL,NULL,NULL,'2026-03-01 12:00:00.000000','2026-03-01 12:00:32.500000');
INSERT INTO "claim" VALUES(2,2,1,1,'scored',NULL,1,1,0,NULL,NULL,NULL,NULL,NULL,'2026-03-01 12:00:00.000000','2026-03-01 12:00:32.500000');
INSERT INTO "claim" VALUES(3,3,1,1,'scored',NULL,1,1,0,NULL,NULL,NULL,NULL,NULL,'2026-03-01 12:00:00.000000','2026-03-01 12:00:32.500000');
INSERT INTO "claim" VALUES(4,4,1,1,'withheld','seen in private targets only',1,NULL,0,NULL,NULL,NULL,NULL,NULL,'2026-03-01 12:00:00.000000','2026-03-01 12:00:00.000000');
INSERT INTO "claim" VALUES(5,5,1,1,'reserved',NULL,2,2,0,NULL,NULL,NULL,NULL,NULL,'2026-03-01 12:00:32.500000','2026-03-01 12:00:32.500000');
CREATE TABLE compound (
	id INTEGER NOT NULL, 
	smiles TEXT NOT NULL, 
	smiles_digest TEXT NOT NULL, 
	inchikey TEXT NOT NULL, 
	heavy_atoms INTEGER NOT NULL, 
	sa_score DOUBLE, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_compound PRIMARY KEY (id), 
	CONSTRAINT uq_compound_smiles_digest UNIQUE (smiles_digest)
);
INSERT INTO "compound" VALUES(1,'CCO','ab1de819ede91df490e6441934decfa9041b49f91d6bbadbba4df634ccff57fa','LFQSCWFLJHTTHZ-UHFFFAOYSA-N',3,1.98,'2026-03-01 12:00:00.000000');
INSERT INTO "compound" VALUES(2,'CCN','c4a9b106555ef387049238b8083ca645334f413e66bdc2f7db385f362889f386','QUSNBJAOOMFDIB-UHFFFAOYSA-N',3,2.174,'2026-03-01 12:00:00.000000');
INSERT INTO "compound" VALUES(3,'c1ccccc1','13cad05ca8f49c509e5b7be8c67668484344ebf2b2d12b03b295f14d4b1c32d1','UHOVQNZJYSORNB-UHFFFAOYSA-N',6,1.0,'2026-03-01 12:00:00.000000');
INSERT INTO "compound" VALUES(4,'CCCl','4a080a2a20baa1b8e12f75068f70ff414f1d38c594e10dc956a4b6c31017f3aa','HRYZWHHZPQKTII-UHFFFAOYSA-N',3,2.381,'2026-03-01 12:00:00.000000');
INSERT INTO "compound" VALUES(5,'CCC','8c55ff95a660f37cb05e644e7691e6c66593f453cb2cbaa4d64aa59b40ae8032','ATUOYWHBWRKTHZ-UHFFFAOYSA-N',3,1.755,'2026-03-01 12:00:32.500000');
CREATE TABLE condition (
	id INTEGER NOT NULL, 
	subject TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	action TEXT NOT NULL, 
	since DATETIME NOT NULL, 
	until DATETIME, 
	attempts INTEGER NOT NULL, 
	retry_at DATETIME, 
	CONSTRAINT pk_condition PRIMARY KEY (id)
);
INSERT INTO "condition" VALUES(1,'batch 3','unconfirmed','nobody knows whether the service took this batch of 1 compounds: POST /api/v2/batch-search: the server closed the connection without an answer','wait while it is looked for; else compare with the vendor''s list and type `watcher batches adopt 3 REMOTE_ID` if it is there, `watcher batches release 3` if not','2026-03-01 12:00:32.500000',NULL,1,NULL);
CREATE TABLE foreign_batch (
	remote_id TEXT NOT NULL, 
	seen_at DATETIME NOT NULL, 
	CONSTRAINT pk_foreign_batch PRIMARY KEY (remote_id)
);
INSERT INTO "foreign_batch" VALUES('somebody-else','2026-03-01 12:00:36.000000');
CREATE TABLE instance (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	program_version TEXT NOT NULL, 
	scan_no INTEGER NOT NULL, 
	last_scan_at DATETIME, 
	scan_due_at DATETIME, 
	scan_attempts INTEGER NOT NULL, 
	CONSTRAINT pk_instance PRIMARY KEY (id), 
	CONSTRAINT ck_instance_one_row CHECK (id = 1)
);
INSERT INTO "instance" VALUES(1,'bc1c8aab206e','2026-03-01 12:00:00.000000','0.1.0',2,'2026-03-01 12:00:32.500000',NULL,0);
CREATE TABLE observation (
	id INTEGER NOT NULL, 
	upload_id INTEGER NOT NULL, 
	remote_id INTEGER NOT NULL, 
	code TEXT NOT NULL, 
	longcode TEXT NOT NULL, 
	compound_code TEXT, 
	alias_id INTEGER NOT NULL, 
	seen_at DATETIME NOT NULL, 
	CONSTRAINT pk_observation PRIMARY KEY (id), 
	CONSTRAINT uq_observation_upload_id_remote_id UNIQUE (upload_id, remote_id), 
	CONSTRAINT fk_observation_upload_id FOREIGN KEY(upload_id) REFERENCES upload (id), 
	CONSTRAINT fk_observation_alias_id FOREIGN KEY(alias_id) REFERENCES alias (id)
);
INSERT INTO "observation" VALUES(1,1,103,'A0310a','A71EV2A-x0310_A_147_v1','Z1',1,'2026-03-01 12:00:00.000000');
INSERT INTO "observation" VALUES(2,1,106,'A0311a','A71EV2A-x0311_A_147_v1','Z2',2,'2026-03-01 12:00:00.000000');
INSERT INTO "observation" VALUES(3,1,109,'A0312a','A71EV2A-x0312_A_147_v1','Z3',1,'2026-03-01 12:00:00.000000');
INSERT INTO "observation" VALUES(4,2,112,'P0001a','Mpro-x0001_A_147_v1','Z4',3,'2026-03-01 12:00:00.000000');
INSERT INTO "observation" VALUES(5,2,115,'P0002a','Mpro-x0002_A_147_v1','Z5',2,'2026-03-01 12:00:00.000000');
INSERT INTO "observation" VALUES(6,3,118,'S0001a','Secret-x0001_A_147_v1','Z7',4,'2026-03-01 12:00:00.000000');
INSERT INTO "observation" VALUES(7,4,103,'A0310a','A71EV2A-x0310_A_147_v1','Z1',1,'2026-03-01 12:00:32.500000');
INSERT INTO "observation" VALUES(8,4,106,'A0311a','A71EV2A-x0311_A_147_v1','Z2',2,'2026-03-01 12:00:32.500000');
INSERT INTO "observation" VALUES(9,4,109,'A0312a','A71EV2A-x0312_A_147_v1','Z3',1,'2026-03-01 12:00:32.500000');
INSERT INTO "observation" VALUES(10,4,121,'A0400a','A71EV2A-x0400_A_147_v1','Z9',5,'2026-03-01 12:00:32.500000');
INSERT INTO "observation" VALUES(11,4,124,'A0401a','A71EV2A-x0401_A_147_v1','Z10',6,'2026-03-01 12:00:32.500000');
CREATE TABLE outbox (
	id INTEGER NOT NULL, 
	address INTEGER NOT NULL, 
	event TEXT NOT NULL, 
	condition_id INTEGER, 
	subject TEXT NOT NULL, 
	body TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	due_at DATETIME, 
	begun_at DATETIME, 
	attempts INTEGER NOT NULL, 
	error TEXT, 
	sent_at DATETIME, 
	CONSTRAINT pk_outbox PRIMARY KEY (id)
);
INSERT INTO "outbox" VALUES(1,1,'upload',NULL,'s','b','2026-03-01 12:00:36.000000',NULL,NULL,0,NULL,'2026-03-01 12:00:36.000000');
CREATE TABLE profile (
	id INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	api_version TEXT NOT NULL, 
	normalised TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	approved_at DATETIME, 
	approved_by TEXT, 
	resumed_after INTEGER, 
	CONSTRAINT pk_profile PRIMARY KEY (id), 
	CONSTRAINT uq_profile_key UNIQUE ("key")
);
INSERT INTO "profile" VALUES(1,'9b6d1d2e1bac48a3','v2','{"api_version":"v2","detail_level":"score","parameters":{}}','2026-03-01 12:00:00.000000','2026-03-01 12:00:00.000000','first profile of the record',NULL);
CREATE TABLE score (
	id INTEGER NOT NULL, 
	batch_id INTEGER NOT NULL, 
	claim_id INTEGER, 
	kind TEXT NOT NULL, 
	smiles TEXT NOT NULL, 
	status TEXT NOT NULL, 
	result DOUBLE, 
	certainty DOUBLE, 
	price_usd DOUBLE, 
	reaction_count INTEGER, 
	timed_out BOOLEAN, 
	route TEXT, 
	raw TEXT NOT NULL, 
	raw_digest TEXT NOT NULL, 
	received_at DATETIME NOT NULL, 
	CONSTRAINT pk_score PRIMARY KEY (id), 
	CONSTRAINT uq_score_batch_id_raw_digest UNIQUE (batch_id, raw_digest), 
	CONSTRAINT fk_score_batch_id FOREIGN KEY(batch_id) REFERENCES batch (id), 
	CONSTRAINT fk_score_claim_id FOREIGN KEY(claim_id) REFERENCES claim (id)
);
INSERT INTO "score" VALUES(1,2,3,'scored','c1ccccc1','ok',4.941,0.6403,28.22,5,0,NULL,'{"target_smiles": "c1ccccc1", "status": "ok", "result": 4.941, "certainty": 0.6403, "price": 28.22, "reaction_count": 5, "timed_out": false, "synthesis": null, "name": "watcher/bc1c8aab206e/909d248811fe473daf5c201a3fbf43a2", "target_metadata_name": null, "url": "/dashboard/batch-scoring/6d54c267-91d1-44c4-845b-99fedce2ade0/0"}','992d39431520d00f3160548cf4b0ca69a555efb7f327edb70e8511b4996fe8bb','2026-03-01 12:00:32.500000');
INSERT INTO "score" VALUES(2,1,1,'scored','CCO','ok',6.99,0.4646,183.8,8,0,NULL,'{"target_smiles": "CCO", "status": "ok", "result": 6.99, "certainty": 0.4646, "price": 183.8, "reaction_count": 8, "timed_out": false, "synthesis": null, "name": "watcher/bc1c8aab206e/cb529b5953c046a0b510e8983dfde08f", "target_metadata_name": null, "url": "/dashboard/batch-scoring/e4c32452-fdc9-41a9-a859-3f9e621b246b/0"}','4b52a089f3690cdc827c35e36fa31ae62fe6056a8a323c76ede07a9af91cc2ab','2026-03-01 12:00:32.500000');
INSERT INTO "score" VALUES(3,1,2,'scored','CCN','ok',5.125,0.5755,84.06,6,0,NULL,'{"target_smiles": "CCN", "status": "ok", "result": 5.125, "certainty": 0.5755, "price": 84.06, "reaction_count": 6, "timed_out": false, "synthesis": null, "name": "watcher/bc1c8aab206e/cb529b5953c046a0b510e8983dfde08f", "target_metadata_name": null, "url": "/dashboard/batch-scoring/e4c32452-fdc9-41a9-a859-3f9e621b246b/1"}','fb3222bb95fd721b0ffb2f42968116fa808fe16b17191ea60ffd75c7543ee014','2026-03-01 12:00:32.500000');
CREATE TABLE target (
	id INTEGER NOT NULL, 
	stack TEXT NOT NULL, 
	remote_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	target_access_string TEXT NOT NULL, 
	open_to_public BOOLEAN, 
	followed BOOLEAN NOT NULL, 
	listed BOOLEAN NOT NULL, 
	first_seen_at DATETIME NOT NULL, 
	remote_index INTEGER, 
	current_upload_id INTEGER, 
	baseline_upload_id INTEGER, 
	last_success_at DATETIME, 
	CONSTRAINT pk_target PRIMARY KEY (id), 
	CONSTRAINT uq_target_stack_remote_id UNIQUE (stack, remote_id)
);
INSERT INTO "target" VALUES(1,'https://stack.example',1,'A71EV2A','lb32627-66',1,1,1,'2026-03-01 12:00:00.000000',2,4,NULL,'2026-03-01 12:00:32.500000');
INSERT INTO "target" VALUES(2,'https://stack.example',2,'Mpro','lb18145-1',1,1,1,'2026-03-01 12:00:00.000000',1,2,NULL,'2026-03-01 12:00:32.500000');
INSERT INTO "target" VALUES(3,'https://stack.example',3,'Secret','lb99999-1',0,1,1,'2026-03-01 12:00:00.000000',1,3,NULL,'2026-03-01 12:00:32.500000');
CREATE TABLE transition (
	id INTEGER NOT NULL, 
	entity TEXT NOT NULL, 
	entity_id INTEGER NOT NULL, 
	field TEXT NOT NULL, 
	old TEXT, 
	new TEXT, 
	at DATETIME NOT NULL, 
	who TEXT NOT NULL, 
	why TEXT NOT NULL, 
	CONSTRAINT pk_transition PRIMARY KEY (id)
);
INSERT INTO "transition" VALUES(1,'target',1,'current_upload_index',NULL,'1','2026-03-01 12:00:00.000000','watcher','first upload seen');
INSERT INTO "transition" VALUES(2,'upload',1,'archive','skipped','wanted','2026-03-01 12:00:00.000000','watcher','first upload seen');
INSERT INTO "transition" VALUES(3,'upload',1,'scoring','history','detected','2026-03-01 12:00:00.000000','watcher','first upload seen');
INSERT INTO "transition" VALUES(4,'target',2,'current_upload_index',NULL,'1','2026-03-01 12:00:00.000000','watcher','first upload seen');
INSERT INTO "transition" VALUES(5,'upload',2,'archive','skipped','wanted','2026-03-01 12:00:00.000000','watcher','first upload seen');
INSERT INTO "transition" VALUES(6,'upload',2,'scoring','history','detected','2026-03-01 12:00:00.000000','watcher','first upload seen');
INSERT INTO "transition" VALUES(7,'target',3,'current_upload_index',NULL,'1','2026-03-01 12:00:00.000000','watcher','first upload seen');
INSERT INTO "transition" VALUES(8,'upload',3,'archive','skipped','wanted','2026-03-01 12:00:00.000000','watcher','first upload seen');
INSERT INTO "transition" VALUES(9,'upload',3,'scoring','history','detected','2026-03-01 12:00:00.000000','watcher','first upload seen');
INSERT INTO "transition" VALUES(10,'upload',1,'scoring','detected','extracted','2026-03-01 12:00:00.000000','watcher','3 observations read');
INSERT INTO "transition" VALUES(11,'upload',2,'scoring','detected','extracted','2026-03-01 12:00:00.000000','watcher','2 observations read');
INSERT INTO "transition" VALUES(12,'upload',3,'scoring','detected','extracted','2026-03-01 12:00:00.000000','watcher','1 observations read');
INSERT INTO "transition" VALUES(13,'upload',3,'scoring','extracted','scored','2026-03-01 12:00:00.000000','watcher','every compound has its result');
INSERT INTO "transition" VALUES(14,'batch',1,'state',NULL,'submitting','2026-03-01 12:00:00.000000','watcher','2 compounds are due');
INSERT INTO "transition" VALUES(15,'batch',1,'state','submitting','submitted','2026-03-01 12:00:00.000000','watcher','accepted');
INSERT INTO "transition" VALUES(16,'batch',2,'state',NULL,'submitting','2026-03-01 12:00:00.000000','watcher','1 compounds are due');
INSERT INTO "transition" VALUES(17,'batch',2,'state','submitting','submitted','2026-03-01 12:00:00.000000','watcher','accepted');
INSERT INTO "transition" VALUES(18,'upload',1,'archive','wanted','stored','2026-03-01 12:00:02.500000','watcher','downloaded, checked and unpacked');
INSERT INTO "transition" VALUES(19,'upload',2,'archive','wanted','stored','2026-03-01 12:00:05.000000','watcher','downloaded, checked and unpacked');
INSERT INTO "transition" VALUES(20,'upload',3,'archive','wanted','stored','2026-03-01 12:00:07.500000','watcher','downloaded, checked and unpacked');
INSERT INTO "transition" VALUES(21,'batch',2,'state','submitted','finished','2026-03-01 12:00:32.500000','watcher','nothing is queued or running any more');
INSERT INTO "transition" VALUES(22,'batch',2,'state','finished','collected','2026-03-01 12:00:32.500000','watcher','every result is stored');
INSERT INTO "transition" VALUES(23,'batch',1,'state','submitted','finished','2026-03-01 12:00:32.500000','watcher','nothing is queued or running any more');
INSERT INTO "transition" VALUES(24,'batch',1,'state','finished','collected','2026-03-01 12:00:32.500000','watcher','every result is stored');
INSERT INTO "transition" VALUES(25,'upload',1,'scoring','extracted','scored','2026-03-01 12:00:32.500000','watcher','every compound has its result');
INSERT INTO "transition" VALUES(26,'upload',2,'scoring','extracted','scored','2026-03-01 12:00:32.500000','watcher','every compound has its result');
INSERT INTO "transition" VALUES(27,'target',1,'current_upload_index','1','2','2026-03-01 12:00:32.500000','watcher','the index went up');
INSERT INTO "transition" VALUES(28,'upload',4,'archive','skipped','wanted','2026-03-01 12:00:32.500000','watcher','the index went up');
INSERT INTO "transition" VALUES(29,'upload',4,'scoring','history','detected','2026-03-01 12:00:32.500000','watcher','the index went up');
INSERT INTO "transition" VALUES(30,'upload',4,'scoring','detected','extracted','2026-03-01 12:00:32.500000','watcher','5 observations read');
INSERT INTO "transition" VALUES(31,'batch',3,'state',NULL,'submitting','2026-03-01 12:00:32.500000','watcher','1 compounds are due');
INSERT INTO "transition" VALUES(32,'batch',3,'state','submitting','unconfirmed','2026-03-01 12:00:32.500000','watcher','POST /api/v2/batch-search: the server closed the connection without an answer');
INSERT INTO "transition" VALUES(33,'upload',4,'archive','wanted','stored','2026-03-01 12:00:35.000000','watcher','downloaded, checked and unpacked');
INSERT INTO "transition" VALUES(34,'upload',1,'archive','stored','pruned','2026-03-01 12:00:36.000000','watcher','download.keep_uploads is 1');
CREATE TABLE upload (
	id INTEGER NOT NULL, 
	target_id INTEGER NOT NULL, 
	upload_index INTEGER NOT NULL, 
	committed_at DATETIME NOT NULL, 
	seen_at DATETIME NOT NULL, 
	scan_no INTEGER NOT NULL, 
	archive_state TEXT NOT NULL, 
	archive_due_at DATETIME, 
	archive_attempts INTEGER NOT NULL, 
	archive_undecodable INTEGER NOT NULL, 
	archive_error TEXT, 
	archive_task TEXT, 
	archive_task_at DATETIME, 
	archive_path TEXT, 
	archive_sha256 TEXT, 
	archive_size INTEGER, 
	archive_verified_at DATETIME, 
	scoring_state TEXT NOT NULL, 
	scoring_due_at DATETIME, 
	scoring_attempts INTEGER NOT NULL, 
	scoring_error TEXT, 
	extracted_at DATETIME, 
	settle_due_at DATETIME, 
	scored_at DATETIME, 
	program_version TEXT NOT NULL, 
	CONSTRAINT pk_upload PRIMARY KEY (id), 
	CONSTRAINT uq_upload_target_id_upload_index_committed_at UNIQUE (target_id, upload_index, committed_at), 
	CONSTRAINT ck_upload_archive_state CHECK (archive_state IN ('wanted', 'stored', 'unavailable', 'skipped', 'quarantined', 'pruned')), 
	CONSTRAINT ck_upload_scoring_state CHECK (scoring_state IN ('detected', 'extracted', 'scored', 'history', 'quarantined')), 
	CONSTRAINT fk_upload_target_id FOREIGN KEY(target_id) REFERENCES target (id)
);
INSERT INTO "upload" VALUES(1,1,1,'2024-09-01 10:14:07.123456','2026-03-01 12:00:00.000000',1,'pruned',NULL,0,0,NULL,NULL,NULL,NULL,'c4f6d15dd73b670b100ca57efa41d966890005c90ffc472aa11f4fc41d939130',700,'2026-03-01 12:00:02.500000','scored',NULL,0,NULL,'2026-03-01 12:00:00.000000',NULL,'2026-03-01 12:00:32.500000','0.1.0');
INSERT INTO "upload" VALUES(2,2,1,'2024-09-01 11:14:07.123456','2026-03-01 12:00:00.000000',1,'stored',NULL,0,0,NULL,NULL,NULL,'lb18145-1/Mpro/1/Mpro.tar.gz','e98c652e09acef85a769d32361c3bbc7aeed0ab6aa7f48cfa92d28b5ababaea2',633,'2026-03-01 12:00:36.000000','scored',NULL,0,NULL,'2026-03-01 12:00:00.000000','2026-03-01 12:10:00.000000','2026-03-01 12:00:32.500000','0.1.0');
INSERT INTO "upload" VALUES(3,3,1,'2024-09-01 12:14:07.123456','2026-03-01 12:00:00.000000',1,'stored',NULL,0,0,NULL,NULL,NULL,'lb99999-1/Secret/1/Secret.tar.gz','d1a0900d8452b5bdb43f0c4fbfad47076819cb97b8b8c4ad65e9be48c3945601',527,'2026-03-01 12:00:36.000000','scored',NULL,0,NULL,'2026-03-01 12:00:00.000000','2026-03-01 12:10:00.000000','2026-03-01 12:00:00.000000','0.1.0');
INSERT INTO "upload" VALUES(4,1,2,'2024-09-01 13:14:07.123456','2026-03-01 12:00:32.500000',2,'stored',NULL,0,0,NULL,NULL,NULL,'lb32627-66/A71EV2A/2/A71EV2A.tar.gz','837e44507b9b1dcc20359ae66bbacbbdd1f957c57e0d5b8c09c3acaaea7fd83c',865,'2026-03-01 12:00:35.000000','extracted',NULL,0,NULL,'2026-03-01 12:00:32.500000','2026-03-01 12:10:32.500000',NULL,'0.1.0');
CREATE INDEX ix_compound_inchikey ON compound (inchikey);
CREATE UNIQUE INDEX uq_condition_open ON condition (subject, kind) WHERE until IS NULL;
CREATE INDEX ix_transition_entity ON transition (entity, entity_id);
CREATE INDEX ix_outbox_condition_id ON outbox (condition_id);
CREATE INDEX ix_outbox_waiting ON outbox (due_at) WHERE sent_at IS NULL;
CREATE INDEX ix_upload_scoring_state ON upload (scoring_state);
CREATE INDEX ix_alias_compound_id ON alias (compound_id);
CREATE INDEX ix_claim_state ON claim (state, profile_id, reason);
CREATE INDEX ix_claim_counted_in ON claim (counted_in);
CREATE INDEX ix_batch_sent_at ON batch (sent_at);
CREATE INDEX ix_batch_state ON batch (state, due_at);
CREATE INDEX ix_observation_alias_id ON observation (alias_id);
CREATE INDEX ix_batch_item_claim_id ON batch_item (claim_id);
CREATE UNIQUE INDEX uq_batch_item_live ON batch_item (claim_id) WHERE live;
CREATE INDEX ix_score_claim_id ON score (claim_id);
COMMIT;
