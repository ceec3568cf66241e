package statement

import "strings"

type rank uint8

const (
	fnPlain   rank = iota // anyone may call it
	fnWrites              // changes state inside the database: not for reading
	fnRefused             // never
)

// shown gives a function name fit for a reason. Quoted text is not shown: it may be a string.
func shown(t *token) string {
	if t.kind != word || len(t.low) > 64 {
		return "in quotes"
	}
	return upper(t.low)
}

// function ranks a call of schema.name; both are lower case, schema may be empty. noArgs tells that nothing stands
// between the parentheses.
func function(d Dialect, schema, name string, noArgs bool) rank {
	switch d {
	case PostgreSQL, Redshift:
		return pgFunction(schema, name)
	case MySQL:
		return mysqlFunction(name, noArgs)
	case SQLite:
		return sqliteFunction(name)
	case SQLServer:
		return sqlserverFunction(name)
	}
	return oracleFunction(schema, name)
}

func hasPrefix(name string, prefixes ...string) bool {
	_, ok := cut(name, prefixes...)
	return ok
}

func pgFunction(schema, name string) rank {
	switch schema {
	case "cron", "aws_s3", "aws_lambda", "net", "dblink", "pgagent", "dbms_alert", "dbms_pipe", "utl_file", "dbms_sql",
		"dbms_output", "dbms_assert", "partman", "http":
		return fnRefused
	}
	switch name {
	case "nextval", "setval", "lo_create", "lo_creat", "lo_unlink", "lo_from_bytea", "lo_put", "lo_truncate",
		"lo_truncate64", "lowrite", "txid_current", "pg_current_xact_id", "setseed",
		"addgeometrycolumn", "dropgeometrycolumn", "dropgeometrytable", "updategeometrysrid", "populate_geometry_columns",
		"lockrow", "unlockrows", "createtopology", "droptopology", "postgis_extensions_upgrade", "create_hypertable",
		"compress_chunk", "decompress_chunk", "add_retention_policy", "add_compression_policy", "pg_notify", "pg_logical_emit_message",
		"gin_clean_pending_list", "brin_summarize_new_values", "brin_summarize_range", "brin_desummarize_range":
		return fnWrites
	case "lo_get", "txid_current_snapshot", "txid_current_if_assigned", "txid_snapshot_xmin", "txid_snapshot_xmax",
		"txid_snapshot_xip", "txid_visible_in_snapshot", "txid_status":
		return fnPlain
	case "set_limit", "tuple_data_split", "fsm_page_contents", "set_config", "query_to_xml", "ts_stat", "ts_rewrite", "connectby", "xpath_table", "xslt_process", "lowrite64",
		"loread", "currtid", "currtid2", "normal_rand", "http", "fsync", "unique_key_recheck", "get_raw_page",
		"suppress_redundant_updates_trigger", "file_fdw_handler", "autoprewarm_start_worker", "autoprewarm_dump_now",
		"page_header", "heap_page_items", "verify_heapam", "run_command_on_workers", "run_command_on_shards",
		"run_command_on_placements", "query_export_to_s3", "table_import_from_s3", "drop_chunks", "run_job", "add_job":
		return fnRefused
	}
	if hasPrefix(name, "query_to_xml", "table_to_xml", "cursor_to_xml", "database_to_xml", "schema_to_xml", "dblink",
		"lo_", "crosstab", "brin_", "gin_", "heap_force_", "postgres_fdw_", "http_", "txid_", "plpgsql_",
		"plperl", "plpython", "plv8", "pltcl", "binary_upgrade_", "dbms_", "utl_", "file_fdw_", "aws_", "citus_", "master_", "bt_", "heap_page_",
		"gist_page_", "hash_page_", "hash_metapage_", "hash_bitmap_", "set_curcfg", "set_curdict", "set_curprs") {
		return fnRefused
	}
	if strings.HasPrefix(name, "pg_") {
		return pgSystemFunction(name)
	}
	return fnPlain
}

// pgSystemFunction allows, of all that starts with pg_, what only looks.
func pgSystemFunction(name string) rank {
	switch name {
	case "pg_typeof", "pg_size_pretty", "pg_size_bytes", "pg_column_size", "pg_column_compression", "pg_collation_for",
		"pg_database_size", "pg_relation_size", "pg_table_size", "pg_total_relation_size", "pg_indexes_size",
		"pg_tablespace_size", "pg_backend_pid", "pg_client_encoding", "pg_encoding_to_char", "pg_char_to_encoding",
		"pg_postmaster_start_time", "pg_conf_load_time", "pg_is_in_recovery", "pg_is_other_temp_schema",
		"pg_my_temp_schema", "pg_has_role", "pg_describe_object", "pg_identify_object", "pg_options_to_table",
		"pg_index_column_has_property", "pg_index_has_property", "pg_indexam_has_property", "pg_trigger_depth",
		"pg_blocking_pids", "pg_partition_tree", "pg_partition_ancestors", "pg_partition_root",
		"pg_last_wal_receive_lsn", "pg_last_wal_replay_lsn", "pg_last_xact_replay_timestamp", "pg_current_wal_lsn",
		"pg_wal_lsn_diff", "pg_timezone_names", "pg_timezone_abbrevs", "pg_input_is_valid", "pg_input_error_info",
		"pg_current_snapshot", "pg_snapshot_xmin", "pg_snapshot_xmax", "pg_visible_in_snapshot", "pg_relation_filenode",
		"pg_relation_is_updatable", "pg_column_is_updatable", "pg_tablespace_location", "pg_tablespace_databases",
		"pg_basetype", "pg_lock_status", "pg_show_all_settings", "pg_settings_get_flags", "pg_mcv_list_items",
		"pg_stat_statements", "pg_stat_get_activity", "pg_jit_available", "pg_listening_channels", "pg_lsn",
		"pg_get_functiondef", "pg_get_viewdef", "pg_get_indexdef", "pg_get_constraintdef", "pg_get_expr",
		"pg_get_serial_sequence", "pg_get_userbyid", "pg_get_triggerdef", "pg_get_ruledef", "pg_get_keywords",
		"pg_get_function_arguments", "pg_get_function_identity_arguments", "pg_get_function_result",
		"pg_get_function_sqlbody", "pg_get_partkeydef", "pg_get_partition_constraintdef", "pg_get_statisticsobjdef",
		"pg_get_statisticsobjdef_columns", "pg_get_catalog_foreign_keys", "pg_get_object_address",
		"pg_table_is_visible", "pg_type_is_visible", "pg_function_is_visible", "pg_operator_is_visible",
		"pg_collation_is_visible", "pg_opclass_is_visible", "pg_ts_config_is_visible", "pg_ts_dict_is_visible",
		"pg_get_late_binding_view_cols", "pg_get_cols":
		return fnPlain
	}
	if hasPrefix(name, "pg_try_advisory_xact_", "pg_advisory_xact_") {
		return fnWrites
	}
	return fnRefused
}

func mysqlFunction(name string, noArgs bool) rank {
	switch name {
	case "nextval", "setval", "get_lock", "release_lock", "release_all_locks":
		return fnWrites
	case "last_insert_id": // with an argument it sets the session's value
		if !noArgs {
			return fnWrites
		}
		return fnPlain
	case "load_file", "sleep", "benchmark", "master_pos_wait", "source_pos_wait", "master_gtid_wait",
		"wait_for_executed_gtid_set", "wait_until_sql_thread_after_gtids", "lastval", "eval", "calsetparms",
		"calflushcache", "calremoveprimkey", "calviewtablelock", "calcleartablelock", "set_firewall_mode",
		"read_firewall_whitelist", "load_rewrite_rules", "gen_dictionary_load", "gen_dictionary_drop",
		"read_firewall_users", "read_firewall_groups", "exec", "execute", "analyse":
		return fnRefused
	}
	if hasPrefix(name, "sys_", "lib_mysqludf", "dbms_", "utl_", "spider_", "mroonga_", "wsrep_", "keyring_", "audit_",
		"mysql_firewall_", "version_tokens_", "service_", "mysqlx_", "asynchronous_connection_failover_",
		"group_replication_", "http_", "mcsset", "mysql_query_attribute_", "rpl_", "xp_") {
		return fnRefused
	}
	return fnPlain
}

func sqliteFunction(name string) rank {
	switch name {
	case "load_extension", "readfile", "writefile", "edit", "fsdir", "lsmode", "lsdir", "fts3_tokenizer", "optimize",
		"sha3_query", "sha1_query", "eval", "zipfile", "zipfile_cds", "shell_add_schema", "shell_putsnl", "shell_module_schema",
		"usleep", "remember", "csv", "define", "define_free", "carray", "undefine", "exec":
		return fnRefused
	case "sqlite_version", "sqlite_source_id", "sqlite_compileoption_used", "sqlite_compileoption_get", "sqlite_offset",
		"sqlite_schema", "sqlite_master":
		return fnPlain
	}
	if hasPrefix(name, "sqlite_", "fileio_", "icu_load", "shell_", "importshp", "exportshp") {
		return fnRefused
	}
	return fnPlain
}

func sqlserverFunction(name string) rank {
	switch name {
	case "openrowset", "opendatasource", "openquery", "openxml", "ai_generate_embeddings", "dm_os_file_exists",
		"dm_os_enumerate_filesystem", "update":
		return fnRefused
	}
	if hasPrefix(name, "xp_", "fn_", "sp_") && name != "fn_helpcollations" && name != "fn_listextendedproperty" {
		return fnRefused
	}
	return fnPlain
}

func oracleFunction(schema, name string) rank {
	switch schema {
	case "sys", "ctxsys", "mdsys", "ordsys", "xdb", "lbacsys", "wmsys", "dvsys", "olapsys", "flows_files":
		return fnRefused
	}
	switch name {
	case "bfilename", "httpuritype", "uritype", "dburitype", "xdburitype", "urifactory", "external", "dbms_pipe", "htp",
		"htf", "owa":
		return fnRefused
	}
	if hasPrefix(schema, "apex_", "wwv_") || schema == "htp" || schema == "htf" || schema == "owa" {
		return fnRefused
	}
	if hasPrefix(name, "utl_", "owa_", "apex_", "wwv_", "kupp", "kupv", "sp_", "ctx_", "ws_") {
		return fnRefused
	}
	return fnPlain
}

// safeOraclePackage allows what only computes.
func safeOraclePackage(pkg, name string) bool {
	switch pkg {
	case "dbms_lob":
		switch name {
		case "substr", "getlength", "instr", "compare":
			return true
		}
	case "dbms_random":
		return name == "value" || name == "string"
	case "dbms_rowid":
		return strings.HasPrefix(name, "rowid_")
	}
	return false
}

// safePragma lists the pragmas that read the schema and may take an argument.
func safePragma(name string) bool {
	switch name {
	case "table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list",
		"database_list", "collation_list", "compile_options", "function_list", "module_list":
		return true
	}
	return false
}

// valuePragma lists the pragmas that read one value, and set it when they get an argument.
func valuePragma(name string) bool {
	switch name {
	case "user_version", "schema_version", "application_id", "encoding", "page_count", "page_size", "freelist_count",
		"data_version":
		return true
	}
	return false
}
